/* Half-open leases: `permits` places, each free, held, or voted. A place is both the permit and the ballot, so there
 * can never be more probes than places, each votes at most once, and the vote is one CAS that a killed process
 * has either made or not. A held place whose time is over is as good as free. */
#ifndef WR_LEASE_H
#define WR_LEASE_H

#include "guard/window.h"
#include "weir/guard.h"

enum { WR_LEASES = 64 };

enum wr_ballot {
    WR_BALLOT_FREE = 0,
    WR_BALLOT_HELD = 1,
    WR_BALLOT_VOTED = 4, /* | WR_BALLOT_FAILED | WR_BALLOT_SLOW */
    WR_BALLOT_FAILED = 1,
    WR_BALLOT_SLOW = 2
};

/* word: [generation:32 | serial:13 | ballot:3 | place:6 | owner:10]. The serial grows with each claim of the place,
 * which makes the word of a claim its identity: the permit's stamp. */
struct wr_lease {
    _Atomic uint64_t word;
    _Atomic uint64_t expires_ns;
};

struct wr_leases {
    struct wr_lease place[WR_LEASES];
};

enum wr_claim {
    WR_CLAIM_GRANTED = 0,
    WR_CLAIM_FULL, /* every place is held or has voted */
    WR_CLAIM_STALE /* a newer generation is at work here: look at the state again */
};

struct wr_lease_terms {
    uint32_t places, generation, owner;
    uint64_t now_ns, expires_ns;
};

enum wr_claim wr_lease_claim(struct wr_leases *leases, const struct wr_lease_terms *terms,
                             weir_permit *permit);
/* Gives the permit's place back (WR_BALLOT_FREE) or turns it into a vote. True if a vote was cast: the permit still
 * held its place and had not expired. */
bool wr_lease_settle(struct wr_leases *leases, weir_permit permit, unsigned ballot, uint64_t now_ns);
void wr_lease_reclaim(struct wr_leases *leases, uint32_t generation, uint32_t owner);
struct wr_counts wr_lease_tally(const struct wr_leases *leases, uint32_t places, uint32_t generation);
/* Whether a vote is older than a lease may last: whoever was to judge the votes is then surely dead. */
bool wr_lease_vote_expired(const struct wr_leases *leases, uint32_t places, uint32_t generation,
                           uint64_t now_ns);
/* When a place will be free at the latest: 0 if one is now or all have voted. */
uint64_t wr_lease_free_in(const struct wr_leases *leases, uint32_t places, uint32_t generation,
                          uint64_t now_ns);

#endif
