/* Leases. The word of a place is swapped whole; its expiry is published before the claim it belongs to. */
#include "guard/lease.h"

#include "guard/moment.h"

enum { PLACE_SHIFT = 10, BALLOT_SHIFT = 16, SERIAL_SHIFT = 19, GENERATION_SHIFT = 32 };

#define OWNER_MASK  UINT64_C(0x3ff)
#define BALLOT_MASK (UINT64_C(7) << BALLOT_SHIFT)
#define SERIAL_MASK (UINT64_C(0x1fff) << SERIAL_SHIFT)

static uint32_t generation_of(uint64_t word)
{
    return (uint32_t)(word >> GENERATION_SHIFT);
}

static unsigned ballot_of(uint64_t word)
{
    return (unsigned)((word & BALLOT_MASK) >> BALLOT_SHIFT);
}

static uint64_t with_ballot(uint64_t word, unsigned ballot)
{
    return (word & ~BALLOT_MASK) | (uint64_t)ballot << BALLOT_SHIFT;
}

static bool available(const struct wr_lease *place, uint64_t word, uint32_t generation, uint64_t now_ns)
{
    if (generation_of(word) != generation || ballot_of(word) == WR_BALLOT_FREE) return true;
    return ballot_of(word) == WR_BALLOT_HELD && now_ns >= atomic_load(&place->expires_ns);
}

static enum wr_claim claim_place(struct wr_leases *leases, uint32_t index, const struct wr_lease_terms *terms,
                                 uint64_t *stamp)
{
    struct wr_lease *place = &leases->place[index];
    for (;;) { /* each turn means that another process has claimed or freed this place */
        uint64_t word = atomic_load(&place->word);
        if ((int32_t)(generation_of(word) - terms->generation) > 0 && word != 0) return WR_CLAIM_STALE;
        if (!available(place, word, terms->generation, terms->now_ns)) return WR_CLAIM_FULL;
        uint64_t serial = (word + (UINT64_C(1) << SERIAL_SHIFT)) & SERIAL_MASK;
        uint64_t who = (uint64_t)index << PLACE_SHIFT | (terms->owner & OWNER_MASK);
        uint64_t claim = (uint64_t)terms->generation << GENERATION_SHIFT | serial | who;
        *stamp = with_ballot(claim, WR_BALLOT_HELD);
        if (wr_moment_publish(&place->expires_ns, terms->expires_ns, &place->word, word) &&
            atomic_compare_exchange_strong(&place->word, &word, *stamp))
            return WR_CLAIM_GRANTED;
    }
}

enum wr_claim wr_lease_claim(struct wr_leases *leases, const struct wr_lease_terms *terms,
                             weir_permit *permit)
{
    for (uint32_t i = 0; i < terms->places && i < WR_LEASES; i++) {
        uint64_t stamp;
        enum wr_claim claim = claim_place(leases, i, terms, &stamp);
        if (claim == WR_CLAIM_FULL) continue;
        if (claim == WR_CLAIM_GRANTED) {
            *permit = (weir_permit){.generation = terms->generation,
                                    .lease = (uint16_t)(i + 1),
                                    .counted = 1,
                                    .stamp = stamp};
        }
        return claim;
    }
    return WR_CLAIM_FULL;
}

bool wr_lease_settle(struct wr_leases *leases, weir_permit permit, unsigned ballot, uint64_t now_ns)
{
    if (permit.lease == 0 || permit.lease > WR_LEASES) return false;
    struct wr_lease *place = &leases->place[permit.lease - 1];
    if (now_ns >= atomic_load(&place->expires_ns)) ballot = WR_BALLOT_FREE;
    uint64_t expected = permit.stamp;
    bool held = atomic_compare_exchange_strong(&place->word, &expected, with_ballot(permit.stamp, ballot));
    return held && ballot != WR_BALLOT_FREE;
}

void wr_lease_reclaim(struct wr_leases *leases, uint32_t generation, uint32_t owner)
{
    for (int i = 0; i < WR_LEASES; i++) {
        _Atomic uint64_t *slot = &leases->place[i].word;
        uint64_t word = atomic_load(slot);
        bool theirs = generation_of(word) == generation && ballot_of(word) == WR_BALLOT_HELD &&
                      (word & OWNER_MASK) == (owner & OWNER_MASK);
        /* If the CAS fails the holder is alive after all, or another process reclaims too. */
        if (theirs) atomic_compare_exchange_strong(slot, &word, with_ballot(word, WR_BALLOT_FREE));
    }
}

struct wr_counts wr_lease_tally(const struct wr_leases *leases, uint32_t places, uint32_t generation)
{
    struct wr_counts counts = {0};
    for (uint32_t i = 0; i < places && i < WR_LEASES; i++) {
        uint64_t word = atomic_load(&leases->place[i].word);
        unsigned ballot = ballot_of(word);
        if (generation_of(word) != generation || ballot < WR_BALLOT_VOTED) continue;
        counts.calls++;
        if (ballot & WR_BALLOT_FAILED) counts.failures++;
        if (ballot & WR_BALLOT_SLOW) counts.slow++;
    }
    return counts;
}

bool wr_lease_vote_expired(const struct wr_leases *leases, uint32_t places, uint32_t generation,
                           uint64_t now_ns)
{
    for (uint32_t i = 0; i < places && i < WR_LEASES; i++) {
        const struct wr_lease *place = &leases->place[i];
        uint64_t word = atomic_load(&place->word);
        bool voted = generation_of(word) == generation && ballot_of(word) >= WR_BALLOT_VOTED;
        if (voted && now_ns >= atomic_load(&place->expires_ns)) return true;
    }
    return false;
}

uint64_t wr_lease_free_in(const struct wr_leases *leases, uint32_t places, uint32_t generation,
                          uint64_t now_ns)
{
    uint64_t earliest = WR_NEVER;
    for (uint32_t i = 0; i < places && i < WR_LEASES; i++) {
        const struct wr_lease *place = &leases->place[i];
        uint64_t word = atomic_load(&place->word);
        if (available(place, word, generation, now_ns)) return 0;
        if (ballot_of(word) != WR_BALLOT_HELD) continue;
        uint64_t left = wr_time_until(atomic_load(&place->expires_ns), now_ns);
        if (left < earliest) earliest = left;
    }
    return earliest == WR_NEVER ? 0 : earliest;
}
