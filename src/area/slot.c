/* Worker slots: who owns which, who is dead, and how a dead one's slot comes back.
 *
 * The owner word moves
 *   free -> owned            wr_slot_claim
 *   owned -> free            wr_slot_release, by the owner, its gauges at zero
 *   owned, dead -> owned     wr_slot_claim by a newcomer, who then settles it: gauges at zero
 *   owned, dead -> reaped    wr_area_reap, which then settles it and tells its caller
 *   reaped -> free           the reaper's next look, when its caller has taken back the dead one's leases
 *   reaped, reaper dead -> owned or reaped, as from owned
 * each by one compare-and-swap, so of two processes that see the same corpse one wins, and one that dies
 * half-way leaves a word that names it as dead. A slot is kept back while `reaped` because leases name slots:
 * freed earlier, a newcomer's own leases would be taken for those of the dead. */
#include "area/layout.h"

#include "base/check.h"
#include "base/text.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

void wr_nap(void)
{
    (void)poll(NULL, 0, 1);
}

/* ---- processes ---- */

/* A process is its pid (22 bits: Linux allows no more) and the low 31 bits of its start time in clock ticks
 * since boot, so a pid that is given out again is somebody else. Start 0: not known, the pid decides. */
enum { START_BITS = 31, PID_BITS = 22 };
#define START_MASK   ((UINT64_C(1) << START_BITS) - 1)
#define PID_MASK     ((UINT64_C(1) << PID_BITS) - 1)
#define PROCESS_MASK ((UINT64_C(1) << (PID_BITS + START_BITS)) - 1)

static pid_t pid_of(uint64_t process)
{
    return (pid_t)((process >> START_BITS) & PID_MASK);
}

static size_t read_small(const char *path, char *text, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    ssize_t got;
    do {
        got = read(fd, text, size - 1);
    } while (got < 0 && errno == EINTR);
    (void)close(fd);
    size_t length = got > 0 ? (size_t)got : 0;
    text[length] = '\0';
    return length;
}

struct process_stat {
    uint64_t start; /* field 22 */
    long threads;   /* field 20 */
    char state;     /* field 3 */
};

/* Field 2, the name, may hold spaces and parentheses, so counting starts behind the last parenthesis. */
static bool parse_stat(const char *text, struct process_stat *stat)
{
    const char *at = strrchr(text, ')');
    if (at == NULL || at[1] != ' ' || at[2] == '\0') return false;
    at += 2;
    stat->state = *at;
    for (int field = 3; field < 22; field++) {
        at = strchr(at, ' ');
        if (at == NULL) return false;
        at++;
        if (field + 1 == 20) stat->threads = strtol(at, NULL, 10);
        if (field + 1 == 22) stat->start = strtoull(at, NULL, 10);
    }
    return true;
}

static bool read_stat(pid_t pid, struct process_stat *stat)
{
    char path[64], text[1024];
    wr_text_format(path, sizeof path, "/proc/%ld/stat", (long)pid);
    memset(stat, 0, sizeof *stat);
    return read_small(path, text, sizeof text) > 0 && parse_stat(text, stat);
}

uint64_t wr_process_self(void)
{
    struct process_stat stat;
    pid_t pid = getpid();
    uint64_t start = read_stat(pid, &stat) ? stat.start & START_MASK : 0;
    return ((uint64_t)pid & PID_MASK) << START_BITS | start;
}

bool wr_process_gone(uint64_t process)
{
    pid_t pid = pid_of(process);
    if (pid <= 0) return true; /* only a damaged word names nobody, and kill() would ask a whole group */
    if (kill(pid, 0) != 0 && errno == ESRCH) return true;
    struct process_stat stat;
    if (!read_stat(pid, &stat)) return false;
    uint64_t start = process & START_MASK;
    if (start != 0 && (stat.start & START_MASK) != start) return true;
    /* A zombie is dead even where nobody collects it. A process whose first thread ended shows as one too. */
    return (stat.state == 'Z' || stat.state == 'X') && stat.threads <= 1;
}

uint64_t wr_process_origin(void)
{
    char boot[64];
    struct stat namespace;
    if (read_small("/proc/sys/kernel/random/boot_id", boot, sizeof boot) == 0) return 0;
    uint64_t origin = stat("/proc/self/ns/pid", &namespace) == 0 ? namespace.st_ino : 0;
    for (const char *at = boot; *at != '\0'; at++) {
        origin = (origin ^ (unsigned char)*at) * UINT64_C(0x100000001b3);
    }
    return origin | 1;
}

/* ---- owner words ---- */

#define OWNED  (UINT64_C(1) << 62)
#define REAPED (UINT64_C(1) << 63)

/* Nobody who could still act under this word. */
static bool is_vacant(uint64_t owner)
{
    return owner == 0 || wr_process_gone(owner & PROCESS_MASK);
}

bool wr_slot_is_owned(const struct wr_area *area, uint32_t worker)
{
    return (atomic_load(&wr_slot_of(area, worker)->owner) & OWNED) != 0;
}

bool wr_slot_owned_by(const struct wr_area *area, uint32_t worker, uint64_t process)
{
    if (worker < 1 || worker > area->shape.workers) return false;
    return atomic_load(&wr_slot_of(area, worker)->owner) == (OWNED | process);
}

/* A dead worker's calls run no more, and nobody will count their end. Its counters say how many there were, exactly: each has
 * one writer. Whoever is interrupted here leaves a difference for the next, so none is counted twice. */
static void abandon_calls(struct wr_pool_meter *meter)
{
    uint64_t ended = 0;
    for (int c = WR_N_OK; c <= WR_N_ABANDONED; c++) ended += atomic_load(&meter->counter[c]);
    uint64_t started = atomic_load(&meter->counter[WR_N_STARTED]);
    if (started > ended) atomic_fetch_add(&meter->counter[WR_N_ABANDONED], started - ended);
}

/* Of a slot whose last owner has gone: by whoever has it now. */
static void settle(struct wr_area *area, uint32_t worker)
{
    uint64_t touched = atomic_load(&wr_slot_of(area, worker)->pools_touched);
    struct wr_pool_meter *meter = (struct wr_pool_meter *)(void *)wr_worker_part(area, worker);
    for (uint32_t pool = 0; pool < area->shape.pools; pool++) {
        if ((touched & (UINT64_C(1) << pool)) == 0) continue;
        for (int gauge = 0; gauge < WR_GAUGES; gauge++) atomic_store(&meter[pool].gauge[gauge], 0);
        abandon_calls(&meter[pool]);
    }
}

/* ---- claiming and giving back ---- */

static bool claim_one(struct wr_area *area, uint32_t worker)
{
    struct wr_slot *slot = wr_slot_of(area, worker);
    uint64_t owner = atomic_load(&slot->owner);
    return is_vacant(owner) && atomic_compare_exchange_strong(&slot->owner, &owner, OWNED | area->self);
}

static uint32_t claim_between(struct wr_area *area, uint32_t first, uint32_t last)
{
    for (uint32_t worker = first; worker <= last; worker++) {
        if (claim_one(area, worker)) return worker;
    }
    return 0;
}

/* Readers must know of a slot before anything is counted in it. */
static void raise_slots_used(struct wr_area *area, uint32_t worker)
{
    _Atomic uint32_t *used = &wr_shared_of(area)->slots_used;
    uint32_t seen = atomic_load(used);
    while (seen < worker && !atomic_compare_exchange_weak(used, &seen, worker)) {
    }
}

static bool any_kept_back(const struct wr_area *area)
{
    for (uint32_t worker = 1; worker <= area->shape.workers; worker++) {
        if ((atomic_load(&wr_slot_of(area, worker)->owner) & REAPED) != 0) return true;
    }
    return false;
}

/* Used slots first: their memory is there already. When all are taken it is worth waiting for one that a
 * reaper keeps back, as it lets go at its next look. */
bool wr_slot_claim(struct wr_area *area, bool *fresh)
{
    for (uint32_t naps = 0;; naps++) {
        uint32_t used = wr_slots_used(area);
        uint32_t worker = claim_between(area, 1, used);
        *fresh = worker == 0;
        if (worker == 0) worker = claim_between(area, used + 1, area->shape.workers);
        if (worker != 0) {
            area->worker = worker;
            raise_slots_used(area, worker);
            settle(area, worker);
            return true;
        }
        if (naps >= area->naps || !any_kept_back(area)) return false;
        wr_nap();
    }
}

static void let_go_of_reaped(struct wr_area *area)
{
    if (area->reaped == 0) return;
    uint64_t owner = REAPED | area->self;
    atomic_compare_exchange_strong(&wr_slot_of(area, area->reaped)->owner, &owner, 0);
    area->reaped = 0;
}

void wr_slot_release(struct wr_area *area)
{
    let_go_of_reaped(area);
    settle(area, area->worker);
    uint64_t owner = OWNED | area->self;
    atomic_compare_exchange_strong(&wr_slot_of(area, area->worker)->owner, &owner, 0);
}

/* ---- looking after the others ---- */

void wr_area_heartbeat(struct wr_area *area, uint64_t now_ns)
{
    atomic_store_explicit(&wr_slot_of(area, area->worker)->heartbeat_ns, now_ns, memory_order_relaxed);
}

uint64_t wr_area_worker_heartbeat(const struct wr_area *area, uint32_t worker)
{
    if (worker < 1 || worker > area->shape.workers) return 0;
    return atomic_load_explicit(&wr_slot_of(area, worker)->heartbeat_ns, memory_order_relaxed);
}

static uint32_t next_other(struct wr_area *area)
{
    uint32_t used = wr_slots_used(area);
    for (uint32_t step = 0; step < 2; step++) {
        area->reap_next = area->reap_next < used ? area->reap_next + 1 : 1;
        if (area->reap_next != area->worker) return area->reap_next;
    }
    return 0;
}

uint32_t wr_area_reap(struct wr_area *area)
{
    let_go_of_reaped(area);
    uint32_t worker = next_other(area);
    if (worker == 0) return 0;
    struct wr_slot *slot = wr_slot_of(area, worker);
    uint64_t owner = atomic_load(&slot->owner);
    if (owner == 0 || !is_vacant(owner)) return 0;
    if (!atomic_compare_exchange_strong(&slot->owner, &owner, REAPED | area->self)) return 0;
    settle(area, worker);
    area->reaped = worker;
    return worker;
}

bool wr_area_worker_alive(const struct wr_area *area, uint32_t worker)
{
    if (worker < 1 || worker > area->shape.workers) return false;
    uint64_t owner = atomic_load(&wr_slot_of(area, worker)->owner);
    return (owner & OWNED) != 0 && !wr_process_gone(owner & PROCESS_MASK);
}

uint64_t wr_area_worker_process(const struct wr_area *area, uint32_t worker)
{
    if (worker < 1 || worker > area->shape.workers) return 0;
    uint64_t owner = atomic_load(&wr_slot_of(area, worker)->owner);
    return (owner & OWNED) != 0 ? owner & PROCESS_MASK : 0;
}

uint32_t wr_area_workers_used(const struct wr_area *area)
{
    return wr_slots_used(area);
}

uint64_t wr_area_worker_pid(const struct wr_area *area, uint32_t worker)
{
    if (worker < 1 || worker > area->shape.workers) return 0;
    uint64_t owner = atomic_load(&wr_slot_of(area, worker)->owner);
    return (owner & OWNED) != 0 ? (uint64_t)pid_of(owner & PROCESS_MASK) : 0;
}
