/* Two places that are written in turn, so that the newest whole text stays whatever becomes of a process in the middle of
 * the next one. One process publishes at a time; a dead one's claim is taken over. */
#include "area/policytext.h"

#include "area/layout.h"
#include "base/memory.h"
#include "base/text.h"

#include <stdlib.h>

enum { READ_TRIES = 8 };

static struct wr_policy_store *store_of(const struct wr_area *area)
{
    return (struct wr_policy_store *)(void *)(area->base + area->at.policy);
}

static uint64_t checksum(const char *text, size_t length)
{
    uint64_t sum = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < length; i++) sum = (sum ^ (unsigned char)text[i]) * UINT64_C(0x100000001b3);
    return sum;
}

static bool claim(struct wr_area *area, struct wr_policy_store *store)
{
    for (uint32_t nap = 0; nap <= area->naps; nap++) {
        uint64_t holder = 0;
        if (atomic_compare_exchange_strong(&store->publisher, &holder, area->self)) return true;
        if (wr_process_gone(holder) && atomic_compare_exchange_strong(&store->publisher, &holder, area->self))
            return true;
        wr_nap();
    }
    return false;
}

static void put_text(struct wr_policy_place *place, const char *text, size_t length)
{
    for (size_t at = 0; at < length; at += 8) {
        uint64_t word = 0;
        memcpy(&word, text + at, length - at < 8 ? length - at : 8);
        atomic_store_explicit(&place->word[at / 8], word, memory_order_release);
    }
}

static void get_text(const struct wr_policy_place *place, char *text, size_t length)
{
    for (size_t at = 0; at < length; at += 8) {
        uint64_t word = atomic_load_explicit(&place->word[at / 8], memory_order_acquire);
        memcpy(text + at, &word, length - at < 8 ? length - at : 8);
    }
}

static void put_whole(struct wr_policy_store *store, uint64_t generation, const char *text, size_t length)
{
    struct wr_policy_place *place = &store->places[generation % 2];
    atomic_store(&place->generation, 0); /* whoever reads the text before last hears that it changes */
    put_text(place, text, length);
    atomic_store(&place->length, length);
    atomic_store(&place->checksum, checksum(text, length));
    atomic_store(&place->generation, generation);
    atomic_store(&store->generation, generation);
}

int wr_policy_put(struct wr_area *area, const char *text, size_t length, uint64_t *generation, char *why)
{
    struct wr_policy_store *store = store_of(area);
    if (length == 0 || length > WR_POLICY_BYTES) {
        wr_text_format(why, WEIR_WHY_MAX, "the policy has %zu bytes; 1 to %d are allowed", length,
                       WR_POLICY_BYTES);
        return WEIR_EINVAL;
    }
    if (!claim(area, store)) {
        wr_text_format(why, WEIR_WHY_MAX, "another process is giving a policy to this area");
        return WEIR_ESYS;
    }
    uint64_t next = atomic_load(&store->generation) + 1;
    put_whole(store, next, text, length);
    atomic_store(&store->publisher, 0);
    *generation = next;
    return WEIR_OK;
}

uint64_t wr_policy_generation(const struct wr_area *area)
{
    return atomic_load_explicit(&store_of(area)->generation, memory_order_acquire);
}

/* False: it was being written over, or is not whole. */
static bool read_place(const struct wr_policy_place *place, uint64_t wanted, char *text, size_t *length)
{
    if (atomic_load(&place->generation) != wanted) return false;
    uint64_t bytes = atomic_load(&place->length);
    uint64_t sum = atomic_load(&place->checksum);
    if (bytes == 0 || bytes > WR_POLICY_BYTES) return false;
    get_text(place, text, (size_t)bytes);
    *length = (size_t)bytes;
    return atomic_load(&place->generation) == wanted && checksum(text, (size_t)bytes) == sum;
}

size_t wr_policy_get(const struct wr_area *area, char *out, size_t size, uint64_t *generation)
{
    const struct wr_policy_store *store = store_of(area);
    size_t length = 0;
    char *text = malloc(WR_POLICY_BYTES);
    *generation = 0;
    for (int i = 0; i < READ_TRIES && text != NULL && length == 0; i++) {
        uint64_t newest = wr_policy_generation(area);
        if (newest == 0) break;
        if (read_place(&store->places[newest % 2], newest, text, &length))
            *generation = newest;
        else
            length = 0;
    }
    if (length > 0 && size > 0) {
        size_t shown = length < size ? length : size - 1;
        memcpy(out, text, shown);
        out[shown] = '\0';
    }
    free(text);
    return length;
}

void wr_policy_carry(struct wr_area *to, const struct wr_area *from)
{
    uint64_t generation = 0;
    char *text = malloc(WR_POLICY_BYTES + 1);
    size_t length = text == NULL ? 0 : wr_policy_get(from, text, WR_POLICY_BYTES + 1, &generation);
    if (length > 0) put_whole(store_of(to), generation, text, length);
    free(text);
}
