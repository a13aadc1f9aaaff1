/* The directories of pools, servers and guards by name: places that are filled from the front and never emptied.
 *
 * A place moves free -> claimed (nobody knows for what name yet) -> named (its record is being made) ->
 * ready. While it is not ready, its state names the maker, process and slot; when that one is gone, whoever
 * comes by takes its part. A seeker waits at a claimed place, since the name might be its own: otherwise two
 * workers could give one pool two places. */
#include "area/layout.h"

#include "base/check.h"
#include "base/text.h"

enum phase { FREE = 0, CLAIMED, NAMED, READY };

/* phase in 2 bits, the maker's slot in 9, its process in 53 */
enum { PROCESS_BITS = 53, PHASE_SHIFT = 62 };
#define PROCESS_MASK ((UINT64_C(1) << PROCESS_BITS) - 1)
#define SLOT_MASK    UINT64_C(0x1ff)

struct directory {
    struct wr_entry *entry;
    uint32_t count;
    char *records;
    uint64_t stride;
};

static struct directory pools_of(const struct wr_area *area)
{
    return (struct directory){
        .entry = (struct wr_entry *)(void *)(area->base + area->at.pool_entries),
        .count = area->shape.pools,
        .records = area->base + area->at.pool_records,
        .stride = area->at.pool_stride,
    };
}

static struct directory objects_of(const struct wr_area *area)
{
    return (struct directory){
        .entry = (struct wr_entry *)(void *)(area->base + area->at.object_entries),
        .count = area->shape.objects,
        .records = area->base + area->at.object_records,
        .stride = area->at.object_stride,
    };
}

static struct directory servers_of(const struct wr_area *area)
{
    return (struct directory){
        .entry = (struct wr_entry *)(void *)(area->base + area->at.server_entries),
        .count = area->shape.servers,
        .records = area->base + area->at.server_records,
        .stride = area->at.server_stride,
    };
}

static enum phase phase_of(uint64_t state)
{
    return (enum phase)(state >> PHASE_SHIFT);
}

static uint64_t made_by(const struct wr_area *area, enum phase phase)
{
    return (uint64_t)phase << PHASE_SHIFT | (uint64_t)area->worker << PROCESS_BITS | area->self;
}

/* An own mark was left by an earlier attempt of this handle that failed: it starts over. */
static bool maker_is_gone(const struct wr_area *area, uint64_t state)
{
    uint64_t process = state & PROCESS_MASK;
    uint32_t slot = (uint32_t)((state >> PROCESS_BITS) & SLOT_MASK);
    if (process == area->self && slot == area->worker) return true;
    return !wr_slot_owned_by(area, slot, process) || wr_process_gone(process);
}

static bool bears(const struct wr_entry *entry, uint32_t kind, const char *name)
{
    return entry->kind == kind && strncmp(entry->name, name, WR_NAME_MAX) == 0;
}

static void give_name(const struct wr_area *area, struct wr_entry *entry, uint32_t kind, const char *name)
{
    entry->kind = kind;
    memset(entry->name, 0, sizeof entry->name);
    wr_text_copy(entry->name, sizeof entry->name, name);
    atomic_store(&entry->state, made_by(area, NAMED));
}

/* Tries to become the maker of a place found in `state`, which is free or whose maker is gone. The record is
 * wiped, unless the place is fresh: then it is zero already, and need not be touched. */
static bool take_place(const struct wr_area *area, const struct directory *directory, uint32_t index,
                       uint64_t state, uint32_t kind, const char *name)
{
    struct wr_entry *entry = &directory->entry[index];
    enum phase next = phase_of(state) == NAMED ? NAMED : CLAIMED;
    if (!atomic_compare_exchange_strong(&entry->state, &state, made_by(area, next))) return false;
    if (next == CLAIMED) give_name(area, entry, kind, name);
    if (phase_of(state) != FREE) memset(directory->records + index * directory->stride, 0, directory->stride);
    return true;
}

enum finding { ANOTHER = 0, FOUND, MADE, BUSY };

static enum finding visit(const struct wr_area *area, const struct directory *directory, uint32_t index,
                          uint32_t kind, const char *name)
{
    struct wr_entry *entry = &directory->entry[index];
    for (uint32_t naps = 0;;) {
        uint64_t state = atomic_load(&entry->state);
        enum phase phase = phase_of(state);
        if (phase >= NAMED && !bears(entry, kind, name)) return ANOTHER;
        if (phase == READY) return FOUND;
        if (phase == FREE || maker_is_gone(area, state)) {
            if (take_place(area, directory, index, state, kind, name)) return MADE;
            continue; /* somebody else took it just now; at most one per living process */
        }
        if (naps++ >= area->naps) return BUSY;
        wr_nap();
    }
}

static int find(const struct wr_area *area, const struct directory *directory, uint32_t kind,
                const char *name, uint32_t *index, bool *created)
{
    *index = 0;
    *created = false;
    if (name == NULL || name[0] == '\0' || strlen(name) >= WR_NAME_MAX) return WEIR_EINVAL;
    for (uint32_t i = 0; i < directory->count; i++) {
        enum finding finding = visit(area, directory, i, kind, name);
        if (finding == ANOTHER) continue;
        if (finding == BUSY) return WEIR_ESYS;
        *index = i;
        *created = finding == MADE;
        return WEIR_OK;
    }
    return WEIR_ENOMEM;
}

/* Does nothing if the place was taken over meanwhile: then the record is another's to finish. */
static void mark_ready(const struct wr_area *area, struct wr_entry *entry)
{
    uint64_t state = made_by(area, NAMED);
    atomic_compare_exchange_strong(&entry->state, &state, (uint64_t)READY << PHASE_SHIFT);
}

/* Of a record that `find` gave out. */
static void mark_record_ready(const struct wr_area *area, const struct directory *directory,
                              const void *record)
{
    uint64_t offset = (uint64_t)((const char *)record - directory->records);
    uint64_t stride = directory->stride > 0 ? directory->stride : 1;
    WR_CHECK(offset % stride == 0 && offset / stride < directory->count);
    mark_ready(area, &directory->entry[offset / stride]);
}

/* Places are taken from the front, and nobody passes one that is claimed: the named ones have no gap. */
static uint32_t named(const struct directory *directory)
{
    uint32_t count = 0;
    while (count < directory->count && phase_of(atomic_load(&directory->entry[count].state)) >= NAMED)
        count++;
    return count;
}

static void *finished(const struct directory *directory, uint32_t index)
{
    if (index >= directory->count || phase_of(atomic_load(&directory->entry[index].state)) != READY)
        return NULL;
    return directory->records + index * directory->stride;
}

/* ---- pools ---- */

int wr_area_pool(struct wr_area *area, const char *name, void **record, uint32_t *index, bool *created)
{
    struct directory pools = pools_of(area);
    int code = find(area, &pools, 0, name, index, created);
    *record = code == WEIR_OK ? pools.records + *index * pools.stride : NULL;
    return code;
}

void wr_area_pool_ready(struct wr_area *area, uint32_t index)
{
    WR_CHECK(index < area->shape.pools);
    mark_ready(area, &pools_of(area).entry[index]);
}

uint32_t wr_area_pool_count(const struct wr_area *area)
{
    struct directory pools = pools_of(area);
    return named(&pools);
}

void *wr_area_pool_record(const struct wr_area *area, uint32_t index)
{
    struct directory pools = pools_of(area);
    return finished(&pools, index);
}

const char *wr_area_pool_name(const struct wr_area *area, uint32_t index)
{
    struct directory pools = pools_of(area);
    if (index >= pools.count || phase_of(atomic_load(&pools.entry[index].state)) < NAMED) return "";
    return pools.entry[index].name;
}

void wr_area_pool_name_copy(const struct wr_area *area, uint32_t index, char out[WR_NAME_MAX])
{
    const char *name = wr_area_pool_name(area, index);
    size_t length = 0;
    while (length < WR_NAME_MAX - 1 && name[length] != '\0') {
        out[length] = name[length];
        length++;
    }
    out[length] = '\0';
}

/* ---- servers ---- */

int wr_area_server(struct wr_area *area, const char *name, void **record, bool *created)
{
    struct directory servers = servers_of(area);
    uint32_t index;
    int code = find(area, &servers, 0, name, &index, created);
    *record = code == WEIR_OK ? servers.records + index * servers.stride : NULL;
    return code;
}

void wr_area_server_ready(struct wr_area *area, void *record)
{
    struct directory servers = servers_of(area);
    mark_record_ready(area, &servers, record);
}

uint32_t wr_area_server_count(const struct wr_area *area)
{
    struct directory servers = servers_of(area);
    return named(&servers);
}

void *wr_area_server_record(const struct wr_area *area, uint32_t index)
{
    struct directory servers = servers_of(area);
    return finished(&servers, index);
}

/* ---- objects ---- */

int wr_area_object(struct wr_area *area, uint32_t kind, const char *name, void **record, bool *created)
{
    struct directory objects = objects_of(area);
    uint32_t index;
    int code = find(area, &objects, kind, name, &index, created);
    *record = code == WEIR_OK ? objects.records + index * objects.stride : NULL;
    return code;
}

void wr_area_object_ready(struct wr_area *area, void *record)
{
    struct directory objects = objects_of(area);
    mark_record_ready(area, &objects, record);
}

/* ---- names in a file that we join ---- */

/* A name not yet given ends when it is. */
static bool names_end(const struct directory *directory)
{
    for (uint32_t i = 0; i < directory->count; i++) {
        uint64_t state = atomic_load(&directory->entry[i].state);
        if (phase_of(state) >= NAMED && directory->entry[i].name[WR_NAME_MAX - 1] != '\0') return false;
    }
    return true;
}

bool wr_directories_sound(const struct wr_area *area)
{
    struct directory pools = pools_of(area), objects = objects_of(area), servers = servers_of(area);
    return names_end(&pools) && names_end(&objects) && names_end(&servers);
}
