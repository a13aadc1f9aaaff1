/* The area: flat, versioned memory that holds everything worth sharing or watching. Private memory for one engine,
 * or a mapped file that several workers and their observers share. Offsets only, no pointers inside.
 *
 * Layout: header | worker slots | directories with records: pools, servers, named objects | labels | event ring | policy
 * text | a record for all | a part per worker (meters with gauges, its record, recorder ring, label series), sparse until used; see layout.h. Sizes follow from the
 * shape, which the header repeats, so that a process with another shape or layout version never misreads it: it
 * replaces the file (new inode), says why, and carries over what it held where only the shape differs.
 *
 * A handle (struct wr_area) belongs to one process and one thread at a time. All processes on one file must share
 * a user and a pid namespace: a file of another pid namespace or an earlier boot is replaced, as its pids and
 * monotonic times mean nothing here. A file's owner is trusted as far as its size goes: truncating a mapped file,
 * or filling its disk, ends whoever touches the missing part (SIGBUS). */
#ifndef WR_SHAREDAREA_H
#define WR_SHAREDAREA_H

#include "base/memory.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    WR_AREA_LAYOUT = 9,          /* bumped whenever any struct in the area changes */
    WR_AREA_PATH_MAX = 4096 - 4, /* with NUL; its draft has `.new` behind it */
    WR_NAME_MAX = 64,            /* pools, objects, areas, with NUL */
    WR_LABEL_MAX = 96            /* labels, with NUL */
};

struct wr_area;

struct wr_area_shape {
    uint32_t workers;      /* slots: 1 .. 256; slot numbers are 1 .. workers, 0 means nobody */
    uint32_t pools;        /* 1 .. 64 */
    uint32_t pool_bytes;   /* one pool's shared record (the engine's: control words, guards) */
    uint32_t labels;       /* 2 .. 4096, label 0 is "other" */
    uint32_t calls;        /* flight recorder entries per worker, a power of two, 16 .. 65536 */
    uint32_t events;       /* event log entries, a power of two, 16 .. 65536 */
    uint32_t objects;      /* directory entries for guards by name, 0 .. 1024 */
    uint32_t object_bytes; /* bytes of each */
    uint32_t servers;      /* directory entries for backends by name, 0 .. 64 */
    uint32_t server_bytes; /* one server's shared record (the engine's: who may connect now) */
    uint32_t common_bytes; /* one record for all (the engine's: orders) */
    uint32_t worker_bytes; /* one worker's own record (the engine's: what it says of itself) */
};

/* How many bytes an area of this shape takes; most of them untouched, so that a file of them is sparse. */
uint64_t wr_area_size(const struct wr_area_shape *shape);

/* Anonymous private memory with the caller as worker 1. WEIR_OK, WEIR_EINVAL (why says which field), WEIR_ENOMEM. */
int wr_area_private(struct wr_area **out, const char *name, const struct wr_area_shape *shape, char *why);

/* Creates or joins the mapped file at `path` and claims a worker slot (dead workers' slots are reclaimed and
 * reused, their meters going on from where they stood). The slot may have been a dead worker's whose leases nobody
 * took back: reclaim wr_area_worker's number from each guard before the first use of it. File mode 0600, or
 * 0640 with group_read. An area that is truncated, damaged, of another layout or shape is replaced (but see wr_area_open_carrying): *replaced then
 * holds the reason, else "". `replaced` and `why` have WEIR_WHY_MAX bytes and may be NULL. What never was an area (any
 * other content, a link, a FIFO, a directory, a file of another user or with a second name) is refused and left alone; so
 * is an area of this layout and boot that an engine of another name made.
 * WEIR_OK, WEIR_EINVAL, WEIR_ENOMEM, WEIR_ESYS (why names path and errno text; also when no slot is free). */
int wr_area_open(struct wr_area **out, const char *path, const char *name, const struct wr_area_shape *shape,
                 bool group_read, char *replaced, char *why);

/* The same; and where only the shape differs, what the old area holds is carried over before the new one gets its name:
 * pools and their records, all counts, labels, recorded calls, events, the policy text. *replaced says so. `settle` (may be
 * NULL) is called for each pool's record, of which nobody in the new area holds anything yet. Who has the old file mapped
 * goes on with it, see wr_area_is_at_path. */
struct wr_carrier {
    void (*settle)(void *ctx, void *pool_record);
    void *ctx;
};
int wr_area_open_carrying(struct wr_area **out, const char *path, const char *name,
                          const struct wr_area_shape *shape, bool group_read,
                          const struct wr_carrier *carrier, char *replaced, char *why);

/* WEIR_EINVAL, and `why`, if the file at `path` is an area that wr_area_open would refuse because an engine of another name
 * made it; WEIR_OK for everything else, which only opening tells. Nothing is mapped or changed. */
int wr_area_check_name(const char *path, const char *name, char *why);
/* The area at `path`, made by whatever engine of this library, to look at it from outside: no slot is taken. It can be
 * written to where the file may be, and else is mapped for reading. Whatever becomes of the file, and whatever it holds,
 * looking at it is safe: a missing part reads as zeros (attach.c). Waits a bounded time for an area that is being made.
 * WEIR_OK; WEIR_ENOMEM; WEIR_ESYS: there is none, or it is not one that this library can read; why says so. */
int wr_area_attach(struct wr_area **out, const char *path, char *why);
bool wr_area_is_writable(const struct wr_area *area);
enum wr_sight { WR_SIGHT_LIVE = 0, WR_SIGHT_DESERTED, WR_SIGHT_REPLACED, WR_SIGHT_GONE, WR_SIGHT_DAMAGED };
bool wr_area_is_worked_on(const struct wr_area *area); /* some worker lives */
enum wr_sight wr_area_sight(const struct wr_area *area, char *why);

/* Gives the slot back (its gauges go to zero, its meters stay) and unmaps. Accepts NULL. */
void wr_area_close(struct wr_area *area);

bool wr_area_is_shared(const struct wr_area *area);
/* False if the file that we have mapped is surely no longer the one at its path: removed, or another is there. */
bool wr_area_is_at_path(const struct wr_area *area);
uint32_t wr_area_worker(const struct wr_area *area);     /* own slot, >= 1; 0: attached */
const char *wr_area_path(const struct wr_area *area);    /* NULL: private */
const char *wr_area_name(const struct wr_area *area);    /* of the engine that made it */
uint64_t wr_area_created_us(const struct wr_area *area); /* wall clock: since when its meters count */
const struct wr_area_shape *wr_area_shape(const struct wr_area *area);

/* The shared record of the pool `name`: zeroed and *created on first sight by any worker. *index is its place,
 * equal in all workers. While one process has *created and not yet called wr_area_pool_ready, others wait a bounded
 * time (they get WEIR_ESYS after 1 s unless the creator died: then they become creator, of a zeroed record).
 * Asking again through the creating handle starts over. WEIR_ENOMEM: directory full. WEIR_EINVAL: name empty or
 * longer than WR_NAME_MAX - 1. */
int wr_area_pool(struct wr_area *area, const char *name, void **record, uint32_t *index, bool *created);
void wr_area_pool_ready(struct wr_area *area, uint32_t index);
uint32_t wr_area_pool_count(const struct wr_area *area);
const char *wr_area_pool_name(const struct wr_area *area, uint32_t index);

/* Copies of a name and of a label that end, whatever a file that somebody has spoilt says. */
void wr_area_pool_name_copy(const struct wr_area *area, uint32_t index, char out[WR_NAME_MAX]);
void wr_area_label_copy(const struct wr_area *area, uint32_t index, char out[WR_LABEL_MAX]);

/* The same for a server by the name of its backend. */
int wr_area_server(struct wr_area *area, const char *name, void **record, bool *created);
void wr_area_server_ready(struct wr_area *area, void *record);
uint32_t wr_area_server_count(const struct wr_area *area);

/* The record of a place below the count, or NULL while it is being made. */
void *wr_area_pool_record(const struct wr_area *area, uint32_t index);
void *wr_area_server_record(const struct wr_area *area, uint32_t index);

/* The same for a guard by name; `kind` keeps names of different kinds apart. */
int wr_area_object(struct wr_area *area, uint32_t kind, const char *name, void **record, bool *created);
void wr_area_object_ready(struct wr_area *area, void *record);

/* The record for all, and the own record of worker 1 .. workers: zeroed at first, and never wiped. NULL if the shape has
 * none, or there is no such worker. */
void *wr_area_common(const struct wr_area *area);
void *wr_area_worker_record(const struct wr_area *area, uint32_t worker);

/* Index of a label, added on first sight; 0 ("other") when the table is full or the label empty. Lock-free; cut to
 * WR_LABEL_MAX. A few indexes below the count may have no label yet, or, lost with a killed process, never: their
 * text is "". */
uint32_t wr_area_label(struct wr_area *area, const char *label);
uint32_t wr_area_label_count(const struct wr_area *area); /* including "other" */
const char *wr_area_label_text(const struct wr_area *area, uint32_t index);

/* Marks the own slot as alive at this moment (CLOCK_MONOTONIC ns). */
void wr_area_heartbeat(struct wr_area *area, uint64_t now_ns);

/* Looks at one other slot per call, round robin; if its process is gone (pid and start time), zeroes its gauges,
 * counts its running calls as abandoned, and returns its number so that the caller can reclaim guards' leases; else 0. The slot is kept back meanwhile,
 * and freed by this handle's next wr_area_reap or wr_area_close; if this process dies first, another reaper gets
 * the number again. Costs four short system calls. */
uint32_t wr_area_reap(struct wr_area *area);
bool wr_area_worker_alive(const struct wr_area *area, uint32_t worker);
uint64_t wr_area_worker_process(const struct wr_area *area, uint32_t worker); /* pid and start; 0 nobody */
uint64_t wr_area_self(const struct wr_area *area);         /* the same of the own process */
uint32_t wr_area_workers_used(const struct wr_area *area); /* slots that ever had an owner are 1 .. this */
uint64_t wr_area_worker_pid(const struct wr_area *area, uint32_t worker);
uint64_t wr_area_worker_heartbeat(const struct wr_area *area, uint32_t worker); /* as last given; 0 never */

#endif
