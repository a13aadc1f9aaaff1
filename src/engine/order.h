/* Orders: what an operator wants of all workers, from whatever process. See weir/area.h.
 *
 * They lie in a ring in the area, as events do. What is to stand is written to the pools' records before the order is in
 * the ring, so that a worker that comes later finds it there; what is to be done once is done by each worker when it looks
 * (wr_orders_look), and its word on it stands on its card. Nobody waits for anybody: a giver that dies half-way leaves an
 * order that the workers pass over after a while. */
#ifndef WR_ORDER_H
#define WR_ORDER_H

#include "engine/card.h"
#include "weir/area.h"

enum { WR_ORDERS = 64, WR_ORDER_USER = 32 };

enum wr_verdict { WR_VERDICT_NONE = 0, WR_VERDICT_DONE, WR_VERDICT_REFUSED };

struct wr_order {
    uint64_t ticket; /* 1, 2, ... in the area */
    uint64_t number; /* connections, a breaker's state, a call, or a policy's generation */
    uint32_t kind;   /* enum weir_order_kind */
    uint32_t pool;   /* index + 1, 0: all */
    uint32_t uid, pid;
    char user[WR_ORDER_USER];
    char reason[WEIR_ORDER_REASON_MAX];
};

enum { WR_ORDER_WORDS = sizeof(struct wr_order) / 8 };

struct wr_order_cell {
    _Atomic uint64_t turn; /* 2 * ticket, one less while it is written */
    _Atomic uint64_t checksum;
    _Atomic uint64_t word[WR_ORDER_WORDS];
};

struct wr_order_ring {      /* the area's common record */
    _Atomic uint64_t begun; /* the last ticket drawn */
    struct wr_order_cell cell[WR_ORDERS];
};

size_t wr_order_bytes(void);

/* give.c: weir_area_order; *given is what the ring has. */
int wr_order_give(weir_area *area, const weir_order *order, struct wr_order *given, char *why);

/* orderring.c. Draws a ticket and puts the order. */
void wr_order_put(struct wr_area *area, struct wr_order *order);
uint64_t wr_order_newest(const struct wr_area *area);
enum wr_order_found { WR_ORDER_THERE = 0, WR_ORDER_COMES, WR_ORDER_LOST };
enum wr_order_found wr_order_get(const struct wr_area *area, uint64_t ticket, struct wr_order *out);
void wr_order_ack(struct wr_area *area, uint64_t ticket, enum wr_verdict verdict, const char *why);

/* obey.c */
void wr_orders_open(struct weir_engine *engine);  /* before pools are opened: what came before is not ours */
void wr_orders_start(struct weir_engine *engine); /* when they are there */
void wr_orders_look(struct weir_engine *engine);
void wr_orders_policy(struct weir_engine *engine, uint64_t generation,
                      const char *why); /* taken, or why not */

#endif
