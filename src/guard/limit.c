/* At most `max` at once, and a dead owner's share comes back exactly.
 *
 * The counts per owner are the only truth: there is no total beside them that a process killed between two
 * instructions could leave wrong. To keep "sum, compare, add one" exact without a lock, acquisitions go through
 * `turn` one after the other: [serial:32 | owner + 1:32]. Whoever finds a turn in progress finishes it first, its
 * taker may be dead; an owner's word remembers the serial of its last acquisition, so finishing twice adds once.
 * Releases need no turn: they only lower the sum, which can make a refusal a moment old but never an
 * admission wrong. */
#include "weir/guard.h"

#include "base/check.h"
#include "base/text.h"

#include <stdatomic.h>
#include <string.h>

enum { OWNERS = 256, MAX_LIMIT = 1000000 };

struct weir_limit {
    _Alignas(64) _Atomic uint64_t turn;
    _Atomic uint32_t owners; /* highest owner that ever acquired, + 1: sums stop there */
    uint32_t max;
    _Alignas(64) _Atomic uint64_t held[OWNERS]; /* [serial of its last acquisition:32 | count:32] */
};

static uint32_t sum(const weir_limit *limit)
{
    uint32_t owners = atomic_load(&limit->owners), total = 0;
    for (uint32_t i = 0; i < owners && i < OWNERS; i++) total += (uint32_t)atomic_load(&limit->held[i]);
    return total;
}

/* Makes the addition that `turn` announces, unless it was made, and ends the turn. The order matters: the owner's word
 * is loaded before the turn is looked at again, so if the turn has ended meanwhile this CAS cannot succeed. */
static void finish_turn(weir_limit *limit, uint64_t turn)
{
    uint32_t serial = (uint32_t)(turn >> 32);
    _Atomic uint64_t *word = &limit->held[((uint32_t)turn - 1) % OWNERS];
    for (;;) {
        uint64_t found = atomic_load(word);
        if (atomic_load(&limit->turn) != turn) return;
        if ((uint32_t)(found >> 32) == serial) break;
        uint64_t next = (uint64_t)serial << 32 | ((uint32_t)found + 1u);
        if (atomic_compare_exchange_strong(word, &found, next)) break;
    }
    atomic_compare_exchange_strong(&limit->turn, &turn, (uint64_t)serial << 32);
}

static void raise_owners(weir_limit *limit, uint32_t owner)
{
    uint32_t owners = atomic_load(&limit->owners);
    while (owners <= owner && !atomic_compare_exchange_weak(&limit->owners, &owners, owner + 1)) {
    }
}

size_t weir_limit_size(void)
{
    return sizeof(weir_limit);
}

int weir_limit_init(weir_limit *limit, uint32_t max, char *why)
{
    if (max < 1 || max > MAX_LIMIT) {
        if (why != NULL) wr_text_format(why, WEIR_WHY_MAX, "max is %u: it must be 1 to %d", max, MAX_LIMIT);
        return WEIR_EINVAL;
    }
    WR_CHECK((uintptr_t)limit % 64 == 0);
    memset(limit, 0, sizeof *limit);
    limit->max = max;
    return WEIR_OK;
}

bool weir_limit_acquire(weir_limit *limit, uint32_t owner)
{
    if (owner >= OWNERS) return false;
    raise_owners(limit, owner);
    for (;;) { /* each turn of the loop means that another acquisition went through */
        uint64_t turn = atomic_load(&limit->turn);
        if ((uint32_t)turn != 0) {
            finish_turn(limit, turn);
            continue;
        }
        if (sum(limit) >= limit->max) {
            if (atomic_load(&limit->turn) == turn) return false;
            continue;
        }
        uint64_t mine = ((turn >> 32) + 1) << 32 | (owner + 1);
        if (atomic_compare_exchange_strong(&limit->turn, &turn, mine)) {
            finish_turn(limit, mine);
            return true;
        }
    }
}

void weir_limit_release(weir_limit *limit, uint32_t owner)
{
    if (owner >= OWNERS) return;
    uint64_t found = atomic_load(&limit->held[owner]);
    do {
        if ((uint32_t)found == 0) return; /* released twice, or reclaimed meanwhile */
    } while (!atomic_compare_exchange_weak(&limit->held[owner], &found, found - 1));
}

/* A sum taken while a slot goes from one owner to another may meet it twice; acquire excludes that, a gauge need not. */
uint32_t weir_limit_used(const weir_limit *limit)
{
    uint32_t used = sum(limit);
    return used < limit->max ? used : limit->max;
}

uint32_t weir_limit_max(const weir_limit *limit)
{
    return limit->max;
}

void weir_limit_reclaim(weir_limit *limit, uint32_t owner)
{
    if (owner >= OWNERS) return;
    uint64_t turn = atomic_load(&limit->turn);
    if ((uint32_t)turn == owner + 1) finish_turn(limit, turn); /* or it would be granted to the dead later */
    uint64_t found = atomic_load(&limit->held[owner]);
    while (!atomic_compare_exchange_weak(&limit->held[owner], &found, found & ~UINT64_C(0xffffffff))) {
    }
}
