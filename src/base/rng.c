/* xoshiro256** by Blackman and Vigna (public domain, prng.di.unimi.it), seeded through splitmix64 as they advise:
 * a seed of few bits, 0 among them, must not start the generator in the neighbourhood of its all-zero state. */
#include "base/rng.h"

static uint64_t splitmix(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static uint64_t rotate_left(uint64_t x, unsigned bits)
{
    return (x << bits) | (x >> (64 - bits));
}

void wr_rng_seed(struct wr_rng *rng, uint64_t seed)
{
    for (int i = 0; i < 4; i++) rng->word[i] = splitmix(&seed);
}

uint64_t wr_rng_next(struct wr_rng *rng)
{
    uint64_t *s = rng->word;
    uint64_t result = rotate_left(s[1] * 5, 7) * 9;
    uint64_t t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate_left(s[3], 45);
    return result;
}

double wr_rng_unit(struct wr_rng *rng)
{
    /* A double holds 53 bits; using more would round up to 1.0 now and then. */
    return (double)(wr_rng_next(rng) >> 11) * 0x1.0p-53;
}
