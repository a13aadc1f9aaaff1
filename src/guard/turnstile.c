/* Who is inside and who waits, counted afresh at each question; see turnstile.h.
 *
 * An owner goes in when those inside and those with earlier tickets leave room: with k free, the first k need not wait
 * for each other; under a rate only the first may ask. It adds itself first and then counts, so two can both be turned away and ask again but never both
 * go in where one may. */
#include "guard/turnstile.h"

#define MS UINT64_C(1000000)

enum { PACE_MS = 2, PACE_MOST_MS = 50, GRACE_MS = 100 };

static void raise_owners(struct wr_turnstile *t, uint32_t owner)
{
    uint32_t owners = atomic_load(&t->owners);
    while (owners <= owner && !atomic_compare_exchange_weak(&t->owners, &owners, owner + 1)) {
    }
}

static uint32_t owners_of(const struct wr_turnstile *t)
{
    uint32_t owners = atomic_load(&t->owners);
    return owners < WR_TURN_OWNERS ? owners : WR_TURN_OWNERS;
}

uint64_t wr_turnstile_inside(const struct wr_turnstile *turnstile, uint64_t now_ns)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < owners_of(turnstile); i++) {
        const struct wr_turn_place *place = &turnstile->place[i];
        uint64_t inside = atomic_load(&place->inside);
        if (inside > 0 && atomic_load(&place->leave_by) >= now_ns) sum += inside;
    }
    return sum;
}

/* Tickets before this one whose owners still ask. */
static uint64_t ahead_of(const struct wr_turnstile *t, uint64_t mine, uint64_t now_ns)
{
    uint64_t ahead = 0;
    for (uint32_t i = 0; i < owners_of(t); i++) {
        uint64_t ticket = atomic_load(&t->place[i].ticket);
        if (ticket != 0 && ticket < mine && atomic_load(&t->place[i].asks_by) >= now_ns) ahead++;
    }
    return ahead;
}

static uint64_t pace(uint64_t ahead, uint32_t at_once)
{
    uint64_t ns = (1 + ahead / at_once) * PACE_MS * MS;
    return ns < PACE_MOST_MS * MS ? ns : PACE_MOST_MS * MS;
}

static bool go_in(struct wr_turnstile *t, struct wr_turn_place *place, const struct wr_turn *turn,
                  uint64_t *wait_ns)
{
    uint64_t leave_by = turn->now_ns + turn->lasts_ns;
    if (atomic_load(&place->leave_by) < leave_by) atomic_store(&place->leave_by, leave_by);
    atomic_fetch_add(&place->inside, 1);
    if (wr_turnstile_inside(t, turn->now_ns) <= turn->at_once &&
        (turn->rate == NULL || weir_rate_take(turn->rate, turn->now_ns, wait_ns)))
        return true;
    wr_turnstile_leave(t, turn->owner);
    return false;
}

bool wr_turnstile_enter(struct wr_turnstile *turnstile, const struct wr_turn *turn, uint64_t *again_ns)
{
    struct wr_turn_place *place = &turnstile->place[turn->owner % WR_TURN_OWNERS];
    raise_owners(turnstile, turn->owner % WR_TURN_OWNERS);
    uint64_t ticket = atomic_load(&place->ticket), wait_ns = 0;
    atomic_store(&place->asks_by,
                 turn->now_ns + GRACE_MS * MS); /* before the ticket: it is never passed over unseen */
    if (ticket == 0) {
        ticket = atomic_fetch_add(&turnstile->drawn, 1) + 1;
        atomic_store(&place->ticket, ticket);
    }
    uint64_t ahead = ahead_of(turnstile, ticket, turn->now_ns);
    bool room = wr_turnstile_inside(turnstile, turn->now_ns) + ahead < turn->at_once;
    if (turn->rate != NULL && ahead > 0) room = false; /* tokens come one by one: luck must not decide */
    if (room && go_in(turnstile, place, turn, &wait_ns)) {
        atomic_store(&place->ticket, 0);
        return true;
    }
    *again_ns = pace(ahead, turn->at_once);
    if (wait_ns > *again_ns) *again_ns = wait_ns < PACE_MOST_MS * MS ? wait_ns : PACE_MOST_MS * MS;
    atomic_store(&place->asks_by, turn->now_ns + *again_ns + GRACE_MS * MS);
    return false;
}

void wr_turnstile_leave(struct wr_turnstile *turnstile, uint32_t owner)
{
    _Atomic uint64_t *inside = &turnstile->place[owner % WR_TURN_OWNERS].inside;
    uint64_t found = atomic_load(inside);
    while (found > 0 && !atomic_compare_exchange_weak(inside, &found, found - 1)) {
    }
}

void wr_turnstile_reclaim(struct wr_turnstile *turnstile, uint32_t owner)
{
    struct wr_turn_place *place = &turnstile->place[owner % WR_TURN_OWNERS];
    atomic_store(&place->ticket, 0);
    atomic_store(&place->inside, 0);
}
