/* What lies in the area and where, and the handle that one process holds on it. Only src/area includes this.
 *
 * Rules that every structure here keeps:
 * - Any process may be killed between two instructions, so nothing is ever locked: a word that several change
 *   is one atomic, and a word that names its holder names a process that can be asked whether it lives.
 * - Numbers found in the area are bounded by the handle's own copy of the shape before they index anything.
 * - All-zero memory is a valid empty area: a fresh sparse file or anonymous mapping needs only a header.
 *
 * Bump WR_AREA_LAYOUT when one of the asserts in layout.c has to change. */
#ifndef WR_LAYOUT_H
#define WR_LAYOUT_H

#include "area/meter.h"
#include "area/policytext.h"
#include "area/recorder.h"
#include "area/sharedarea.h"
#include "area/words.h"
#include "weir/guard.h"

#include <stdalign.h>
#include <stdatomic.h>
#include <string.h>

#define WR_AREA_MAGIC UINT64_C(0x6165726172696577) /* the file begins with "weirarea" */

enum {
    WR_CACHE_LINE = 64,
    WR_PAGE = 4096,
    WR_WAIT_NAPS = 1000 /* of a millisecond each: how long one process waits for another that lives */
};

/* ---- in the area ---- */

/* Written once, before the file gets its name. The checksum covers everything before it, padding included. */
struct wr_header {
    uint64_t magic;
    uint32_t layout, bytes; /* bytes: of this structure */
    uint64_t size;          /* of the whole area */
    uint64_t origin;        /* boot and pid namespace: elsewhere pids and times mean nothing; 0 unknown */
    uint64_t created_us;    /* wall clock */
    struct wr_area_shape shape;
    char name[WR_NAME_MAX];
    uint64_t checksum;
};

/* Numbers that all workers move, each on its own cache line. */
struct wr_shared {
    alignas(WR_CACHE_LINE) _Atomic uint32_t slots_used;   /* highest slot number that ever had an owner */
    alignas(WR_CACHE_LINE) _Atomic uint32_t labels_added; /* beside label 0 */
    alignas(WR_CACHE_LINE) _Atomic uint64_t events_begun; /* the last ticket drawn */
};

/* The head of a worker slot. All but `owner` are written by the owner alone and outlive it. */
struct wr_slot {
    alignas(WR_CACHE_LINE) _Atomic uint64_t owner; /* 0, or a mark and a process: see slot.c */
    _Atomic uint64_t heartbeat_ns;
    _Atomic uint64_t pools_touched; /* a bit per pool whose meter was ever handed out */
    _Atomic uint64_t calls_recorded;
};

/* A place in a directory. `kind` and `name` may be read once `state` says that they are there. */
struct wr_entry {
    _Atomic uint64_t state; /* see directory.c */
    uint32_t kind, unused;
    char name[WR_NAME_MAX];
};

struct wr_label {
    _Atomic uint32_t live; /* 1 once the hash index leads here */
    uint32_t hash;
    char text[WR_LABEL_MAX];
};

enum {
    WR_CALL_WORDS = sizeof(struct wr_recorded_call) / 8,
    WR_EVENT_WORDS = sizeof(struct wr_event) / 8,
    WR_MASK_BITS = 64
};

struct wr_policy_place {                                /* see policytext.c */
    alignas(WR_CACHE_LINE) _Atomic uint64_t generation; /* of the text; 0: none, or being written */
    _Atomic uint64_t length, checksum;
    _Atomic uint64_t word[WR_POLICY_BYTES / 8];
};

struct wr_policy_store {
    alignas(WR_CACHE_LINE) _Atomic uint64_t
        generation;             /* the newest whole text's; it is in places[generation % 2] */
    _Atomic uint64_t publisher; /* the process that writes the next one, 0 nobody */
    struct wr_policy_place places[2];
};

/* A recorder place. `turn` is odd while the content is being written and even after; 0 means never used. */
struct wr_call_cell {
    _Atomic uint64_t turn;
    _Atomic uint64_t word[WR_CALL_WORDS];
};

struct wr_event_cell {
    _Atomic uint64_t turn;
    _Atomic uint64_t checksum; /* of the words: two writers a whole lap apart may mix theirs */
    _Atomic uint64_t word[WR_EVENT_WORDS];
};

/* ---- where ---- */

/* Offsets in bytes. Everything before `workers` belongs to all; the part of worker n begins at
 * workers + (n - 1) * worker_stride, and `touched`, `record`, `recorder`, `series` count from there. */
struct wr_layout {
    uint64_t shared, slots;
    uint64_t pool_entries, pool_records, pool_stride;
    uint64_t object_entries, object_records, object_stride;
    uint64_t server_entries, server_records, server_stride;
    uint64_t labels, label_index, label_places;
    uint64_t events, policy, common;
    uint64_t workers, worker_stride;
    uint64_t touched, touched_words, record, recorder, series; /* touched: per pool a bit per label */
    uint64_t size;
};

/* WEIR_OK, or WEIR_EINVAL and a sentence naming the field in `why`. */
int wr_shape_check(const struct wr_area_shape *shape, char *why);
void wr_layout_compute(struct wr_layout *layout, const struct wr_area_shape *shape); /* of a checked shape */

void wr_header_fill(struct wr_header *header, const char *name, const struct wr_area_shape *shape,
                    uint64_t size, uint64_t created_us);
/* True if `header`, read from a file of `found` bytes, describes this area; else `fault` says why not. */
bool wr_header_sound(const struct wr_header *header, uint64_t found, const struct wr_area_shape *shape,
                     uint64_t size, char *fault);

/* True if the file, of `found` bytes, would be sound had we its shape. */
bool wr_header_is_reshaped(const struct wr_header *header, uint64_t found);

/* True if the file is a sound area of this boot, whatever its shape, that another engine made: `found` is its size, and
 * `fault` then says so. */
bool wr_header_is_anothers(const struct wr_header *header, uint64_t found, const char *name, char *fault);

/* What a worker's first minutes write: its meters without the label series, and its recorder. */
uint64_t wr_layout_worker_start(const struct wr_layout *layout);

/* ---- the handle ---- */

struct wr_area {
    char *base;
    struct wr_layout at;
    struct wr_area_shape shape;
    bool shared;
    bool attached; /* looks on from outside: has no slot, and a guard (sigbus.h) */
    bool writable;
    int guard;
    char name[WR_NAME_MAX];
    uint64_t checksum; /* attached: of the header */
    char *path;        /* NULL: private */
    uint64_t device, inode;
    uint32_t worker;      /* own slot */
    uint64_t self;        /* own process, see wr_process_self */
    uint32_t reap_next;   /* the slot that wr_area_reap looked at last */
    uint32_t reaped;      /* slot that we keep back until its leases are reclaimed, 0 none */
    uint32_t spare_label; /* label place that we own and that nobody can see, 0 none */
    uint32_t naps;        /* WR_WAIT_NAPS, fewer in tests */
};

/* slot.c */
uint64_t wr_process_self(void);         /* pid and start time in 53 bits, never 0 */
bool wr_process_gone(uint64_t process); /* for sure: what cannot be found out counts as alive */
uint64_t wr_process_origin(void);       /* of struct wr_header */
bool wr_slot_claim(struct wr_area *area, bool *fresh); /* false: all slots belong to live workers */
void wr_slot_release(struct wr_area *area);
bool wr_slot_owned_by(const struct wr_area *area, uint32_t worker, uint64_t process);
bool wr_slot_is_owned(const struct wr_area *area, uint32_t worker);
void wr_nap(void); /* about a millisecond */

/* area.c */
struct stat;
int wr_area_handle_new(struct wr_area **out, const struct wr_area_shape *shape, bool shared, char *why);
int wr_file_open(const char *path,
                 int flags); /* never waits for whoever may hold a FIFO open; -1 and errno */
const char *wr_file_open_error(int error);
bool wr_file_is_foreign(int fd); /* was never an area: is neither replaced nor touched */
bool wr_header_read(int fd, struct wr_header *header);
bool wr_area_map(struct wr_area *area, int fd, bool writable); /* fd < 0: private memory */
void wr_area_handle_free(struct wr_area *area);

/* carry.c: into the draft of an area that nobody else sees. */
void wr_area_carry(struct wr_area *to, const struct wr_area *from, const struct wr_carrier *carrier);
bool wr_area_can_carry(const struct wr_area_shape *to, const struct wr_area *from);
void wr_event_put_back(struct wr_area *area, const struct wr_event *event); /* eventlog.c: in rising order */
void wr_policy_carry(struct wr_area *to, const struct wr_area *from);       /* policytext.c */

/* directory.c and label.c: false if a name in a joined file runs on past its field. */
bool wr_directories_sound(const struct wr_area *area);
bool wr_labels_sound(const struct wr_area *area);

static inline struct wr_shared *wr_shared_of(const struct wr_area *area)
{
    return (struct wr_shared *)(void *)(area->base + area->at.shared);
}

static inline struct wr_slot *wr_slot_of(const struct wr_area *area, uint32_t worker)
{
    return (struct wr_slot *)(void *)(area->base + area->at.slots) + (worker - 1);
}

static inline char *wr_worker_part(const struct wr_area *area, uint32_t worker)
{
    return area->base + area->at.workers + (worker - 1) * area->at.worker_stride;
}

/* How many slots a reader has to look at: 1 .. this. */
static inline uint32_t wr_slots_used(const struct wr_area *area)
{
    uint32_t used = atomic_load(&wr_shared_of(area)->slots_used);
    return used < area->shape.workers ? used : area->shape.workers;
}

#endif
