/* Requests the owner serves himself: a line of those to be taken, and a table of all of them by number, since he says
 * by number which has ended. */
#include "load/traffic.h"

#include "base/check.h"

enum { ROOM_AT_FIRST = 64 };

static struct wr_errand **head_of(const struct wr_customs *customs, uint64_t number)
{
    return &customs->heads[number & (customs->room - 1)]; /* numbers are given out one after the other */
}

int wr_customs_reserve(weir_load *load)
{
    struct wr_customs *c = &load->customs;
    if (c->count < c->room) return WEIR_OK;
    struct wr_customs wider = {.room = c->room == 0 ? ROOM_AT_FIRST : 2 * c->room, .count = c->count};
    wider.heads = wr_alloc(load->memory, wider.room * sizeof(struct wr_errand *));
    if (wider.heads == NULL) return WEIR_ENOMEM;
    for (size_t i = 0; i < c->room; i++) {
        while (c->heads[i] != NULL) {
            struct wr_errand *errand = c->heads[i], **head = head_of(&wider, errand->number);
            c->heads[i] = errand->chain;
            errand->chain = *head;
            *head = errand;
        }
    }
    wr_free(load->memory, c->heads);
    *c = wider;
    return WEIR_OK;
}

void wr_customs_add(weir_load *load, struct wr_errand *errand)
{
    WR_CHECK(load->customs.count < load->customs.room);
    struct wr_errand **head = head_of(&load->customs, errand->number);
    bool first = wr_list_empty(&load->untaken);
    errand->chain = *head;
    *head = errand;
    load->customs.count++;
    wr_list_append(&load->untaken, &errand->turn);
    if (first) load->options.arrived(load->options.ctx);
}

static struct wr_errand **place_of(const weir_load *load, uint64_t number)
{
    if (load->customs.room == 0) return NULL;
    struct wr_errand **at = head_of(&load->customs, number);
    while (*at != NULL && (*at)->number != number) at = &(*at)->chain;
    return *at == NULL ? NULL : at;
}

void wr_customs_remove(weir_load *load, struct wr_errand *errand)
{
    struct wr_errand **at = place_of(load, errand->number);
    WR_CHECK(at != NULL && *at == errand);
    *at = errand->chain;
    load->customs.count--;
    wr_list_remove(&errand->turn);
}

bool weir_load_take(weir_load *load, size_t *call, uint64_t *number)
{
    struct wr_list *first = wr_list_first(&load->untaken);
    if (first == NULL) return false;
    struct wr_errand *errand = WR_CONTAINER(first, struct wr_errand, turn);
    wr_list_remove(first);
    *call = (size_t)(errand->kind - load->mix.kinds);
    *number = errand->number;
    return true;
}

void weir_load_settle(weir_load *load, uint64_t number, const weir_error *error, uint32_t attempts)
{
    struct wr_errand **at = place_of(load, number);
    if (at != NULL) wr_errand_settled(*at, error, attempts);
}
