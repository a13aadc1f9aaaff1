/* The shape's limits, the offsets that follow from it, and the header that vouches for both. */
#include "area/layout.h"

#include "base/text.h"

#include <assert.h>
#include <stddef.h>

/* What other processes may have written under the same WR_AREA_LAYOUT. */
static_assert(sizeof(struct wr_header) == 160, "layout changed: bump WR_AREA_LAYOUT");
static_assert(offsetof(struct wr_header, checksum) == 152, "the checksum must come last, without padding");
static_assert(sizeof(struct wr_shared) == 3 * WR_CACHE_LINE, "layout changed: bump WR_AREA_LAYOUT");
static_assert(sizeof(struct wr_slot) == WR_CACHE_LINE, "layout changed: bump WR_AREA_LAYOUT");
static_assert(sizeof(struct wr_entry) == 80, "layout changed: bump WR_AREA_LAYOUT");
static_assert(sizeof(struct wr_label) == 104, "layout changed: bump WR_AREA_LAYOUT");
static_assert(sizeof(struct wr_recorded_call) == 344, "layout changed: bump WR_AREA_LAYOUT");
static_assert(sizeof(struct wr_event) == 352, "layout changed: bump WR_AREA_LAYOUT");
static_assert(sizeof(struct wr_histogram_fine) == 8 * (3 + WR_FINE_BUCKETS), "layout changed");
static_assert(sizeof(struct wr_histogram_coarse) == 8 * (3 + WR_COARSE_BUCKETS), "layout changed");
static_assert(sizeof(struct wr_area_shape) == 12 * sizeof(uint32_t), "the shape must have no padding");

/* Words are copied as 8 bytes each, and atomics must be plain memory that other processes can use. */
static_assert(sizeof(struct wr_recorded_call) % 8 == 0, "recorded calls are copied by words");
static_assert(sizeof(struct wr_event) % 8 == 0, "events are copied by words");
static_assert(sizeof(_Atomic uint64_t) == 8, "a 64-bit atomic must be a plain word");
static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "64-bit atomics must be lock-free");

/* ---- shape ---- */

enum { MOST_RECORD_BYTES = 1 << 20 };

struct limit {
    const char *field;
    size_t offset;
    uint32_t least, most;
    bool power_of_two;
};

static const struct limit limits[] = {
    {"workers", offsetof(struct wr_area_shape, workers), 1, 256, false},
    {"pools", offsetof(struct wr_area_shape, pools), 1, WR_MASK_BITS, false},
    {"pool_bytes", offsetof(struct wr_area_shape, pool_bytes), 1, MOST_RECORD_BYTES, false},
    {"labels", offsetof(struct wr_area_shape, labels), 2, 4096, false},
    {"calls", offsetof(struct wr_area_shape, calls), 16, 65536, true},
    {"events", offsetof(struct wr_area_shape, events), 16, 65536, true},
    {"objects", offsetof(struct wr_area_shape, objects), 0, 1024, false},
    {"object_bytes", offsetof(struct wr_area_shape, object_bytes), 0, MOST_RECORD_BYTES, false},
    {"servers", offsetof(struct wr_area_shape, servers), 0, 64, false},
    {"server_bytes", offsetof(struct wr_area_shape, server_bytes), 0, MOST_RECORD_BYTES, false},
    {"common_bytes", offsetof(struct wr_area_shape, common_bytes), 0, MOST_RECORD_BYTES, false},
    {"worker_bytes", offsetof(struct wr_area_shape, worker_bytes), 0, MOST_RECORD_BYTES, false},
};

enum { LIMITS = sizeof limits / sizeof limits[0] };

static uint32_t field_of(const struct wr_area_shape *shape, const struct limit *limit)
{
    uint32_t value;
    memcpy(&value, (const char *)shape + limit->offset, sizeof value);
    return value;
}

int wr_shape_check(const struct wr_area_shape *shape, char *why)
{
    for (size_t i = 0; i < LIMITS; i++) {
        const struct limit *limit = &limits[i];
        uint32_t value = field_of(shape, limit);
        bool lopsided = limit->power_of_two && (value & (value - 1)) != 0;
        if (value >= limit->least && value <= limit->most && !lopsided) continue;
        wr_text_format(why, WEIR_WHY_MAX, "area: %s is %u, must be %s%u .. %u", limit->field, value,
                       limit->power_of_two ? "a power of two in " : "", limit->least, limit->most);
        return WEIR_EINVAL;
    }
    return WEIR_OK;
}

/* ---- offsets ---- */

static uint64_t round_up(uint64_t n, uint64_t to)
{
    return (n + to - 1) / to * to;
}

/* Takes `bytes` at the next multiple of `alignment` and moves the end behind them. */
static uint64_t take(uint64_t *end, uint64_t bytes, uint64_t alignment)
{
    uint64_t offset = round_up(*end, alignment);
    *end = offset + bytes;
    return offset;
}

/* Half empty at most when the table is full, so that probing stays short. */
static uint64_t label_places_for(uint32_t labels)
{
    uint64_t places = 4;
    while (places < (uint64_t)labels * 2) places *= 2;
    return places;
}

static void place_worker_part(struct wr_layout *layout, const struct wr_area_shape *shape)
{
    uint64_t end = 0;
    take(&end, shape->pools * sizeof(struct wr_pool_meter), WR_CACHE_LINE);
    layout->touched_words = (shape->labels + WR_MASK_BITS - 1) / WR_MASK_BITS;
    layout->touched = take(&end, shape->pools * layout->touched_words * sizeof(uint64_t), WR_CACHE_LINE);
    layout->record = take(&end, shape->worker_bytes, WR_CACHE_LINE);
    layout->recorder = take(&end, shape->calls * sizeof(struct wr_call_cell), WR_CACHE_LINE);
    uint64_t series = (uint64_t)shape->pools * shape->labels;
    layout->series = take(&end, series * sizeof(struct wr_series_meter), WR_PAGE);
    layout->worker_stride = round_up(end, WR_PAGE);
}

void wr_layout_compute(struct wr_layout *layout, const struct wr_area_shape *shape)
{
    uint64_t end = sizeof(struct wr_header);
    layout->shared = take(&end, sizeof(struct wr_shared), WR_CACHE_LINE);
    layout->slots = take(&end, shape->workers * sizeof(struct wr_slot), WR_CACHE_LINE);
    layout->pool_entries = take(&end, shape->pools * sizeof(struct wr_entry), WR_CACHE_LINE);
    layout->pool_stride = round_up(shape->pool_bytes, WR_CACHE_LINE);
    layout->pool_records = take(&end, shape->pools * layout->pool_stride, WR_CACHE_LINE);
    layout->object_entries = take(&end, shape->objects * sizeof(struct wr_entry), WR_CACHE_LINE);
    layout->object_stride = round_up(shape->object_bytes, WR_CACHE_LINE);
    layout->object_records = take(&end, shape->objects * layout->object_stride, WR_CACHE_LINE);
    layout->server_entries = take(&end, shape->servers * sizeof(struct wr_entry), WR_CACHE_LINE);
    layout->server_stride = round_up(shape->server_bytes, WR_CACHE_LINE);
    layout->server_records = take(&end, shape->servers * layout->server_stride, WR_CACHE_LINE);
    layout->label_places = label_places_for(shape->labels);
    layout->label_index = take(&end, layout->label_places * sizeof(uint32_t), WR_CACHE_LINE);
    layout->labels = take(&end, shape->labels * sizeof(struct wr_label), WR_CACHE_LINE);
    layout->events = take(&end, shape->events * sizeof(struct wr_event_cell), WR_CACHE_LINE);
    layout->policy = take(&end, sizeof(struct wr_policy_store), WR_PAGE);
    layout->common = take(&end, shape->common_bytes, WR_PAGE);
    place_worker_part(layout, shape);
    layout->workers = take(&end, shape->workers * layout->worker_stride, WR_PAGE);
    layout->size = end;
}

uint64_t wr_area_size(const struct wr_area_shape *shape)
{
    struct wr_layout layout;
    wr_layout_compute(&layout, shape);
    return layout.size;
}

uint64_t wr_layout_worker_start(const struct wr_layout *layout)
{
    return layout->series;
}

/* ---- header ---- */

/* FNV-1a. Guards against accidents, not against an enemy: whoever can write the file can also truncate it. */
static uint64_t header_checksum(const struct wr_header *header)
{
    uint64_t sum = UINT64_C(0xcbf29ce484222325);
    const unsigned char *byte = (const unsigned char *)header;
    for (size_t i = 0; i < offsetof(struct wr_header, checksum); i++) {
        sum = (sum ^ byte[i]) * UINT64_C(0x100000001b3);
    }
    return sum;
}

void wr_header_fill(struct wr_header *header, const char *name, const struct wr_area_shape *shape,
                    uint64_t size, uint64_t created_us)
{
    memset(header, 0, sizeof *header);
    header->magic = WR_AREA_MAGIC;
    header->layout = WR_AREA_LAYOUT;
    header->bytes = sizeof *header;
    header->size = size;
    header->origin = wr_process_origin();
    header->created_us = created_us;
    header->shape = *shape;
    wr_text_copy(header->name, sizeof header->name, name);
    header->checksum = header_checksum(header);
}

static bool same_shape(const struct wr_area_shape *found, const struct wr_area_shape *expected, char *fault)
{
    for (size_t i = 0; i < LIMITS; i++) {
        uint32_t have = field_of(found, &limits[i]), want = field_of(expected, &limits[i]);
        if (have == want) continue;
        wr_text_format(fault, WEIR_WHY_MAX, "%s %u found, %u expected", limits[i].field, have, want);
        return false;
    }
    return true;
}

/* A process that could not find out where it runs accepts any origin rather than replacing a good area. */
static bool same_origin(uint64_t found)
{
    uint64_t own = wr_process_origin();
    return found == own || found == 0 || own == 0;
}

static bool is_intact(const struct wr_header *header)
{
    return header->bytes == sizeof *header && header->checksum == header_checksum(header);
}

bool wr_header_is_anothers(const struct wr_header *header, uint64_t found, const char *name, char *fault)
{
    char own[WR_NAME_MAX];
    if (found < sizeof *header || header->magic != WR_AREA_MAGIC || header->layout != WR_AREA_LAYOUT)
        return false;
    if (!is_intact(header) || !same_origin(header->origin)) return false;
    wr_text_copy(own, sizeof own, name);
    if (strncmp(header->name, own, sizeof own) == 0) return false;
    wr_text_format(fault, WEIR_WHY_MAX,
                   "belongs to engine '%.63s', and this one is '%s': give each engine a path of its own, or "
                   "remove the file",
                   header->name, own);
    return true;
}

bool wr_header_is_reshaped(const struct wr_header *header, uint64_t found)
{
    char ignored[WEIR_WHY_MAX];
    if (found < sizeof *header || wr_shape_check(&header->shape, ignored) != WEIR_OK) return false;
    return wr_header_sound(header, found, &header->shape, wr_area_size(&header->shape), ignored);
}

/* The most telling difference comes first: another shape explains another size, never the other way round. */
bool wr_header_sound(const struct wr_header *header, uint64_t found, const struct wr_area_shape *shape,
                     uint64_t size, char *fault)
{
    if (found < sizeof *header) {
        wr_text_format(fault, WEIR_WHY_MAX, "size %llu found, %llu expected", (unsigned long long)found,
                       (unsigned long long)size);
    } else if (header->magic != WR_AREA_MAGIC) {
        wr_text_copy(fault, WEIR_WHY_MAX, "not an area: no magic number");
    } else if (header->layout != WR_AREA_LAYOUT) {
        unsigned expected = WR_AREA_LAYOUT;
        wr_text_format(fault, WEIR_WHY_MAX, "layout %u found, %u expected", header->layout, expected);
    } else if (!is_intact(header)) {
        wr_text_copy(fault, WEIR_WHY_MAX, "header damaged: wrong checksum");
    } else if (!same_origin(header->origin)) {
        wr_text_copy(fault, WEIR_WHY_MAX, "left by an earlier boot or another pid namespace");
    } else if (!same_shape(&header->shape, shape, fault)) {
        return false;
    } else if (header->size != size || found != size) {
        wr_text_format(fault, WEIR_WHY_MAX, "size %llu found, %llu expected", (unsigned long long)found,
                       (unsigned long long)size);
    } else {
        return true;
    }
    return false;
}
