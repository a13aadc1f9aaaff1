/* What a worker says of itself in the area: its card. Written by the worker alone, when something changes and once a second;
 * read by whoever looks. Before a worker's own reader looks, it is written anew.
 *
 * Everything here is copied out before it is used, and every number in it is bounded then: the file may be anybody's. */
#ifndef WR_CARD_H
#define WR_CARD_H

#include "area/words.h"
#include "engine/config.h"

struct weir_engine;

enum {
    WR_CARD_NAME = WR_ENGINE_NAME_MAX + 1,
    WR_CARD_HOST = 64,
    WR_CARD_WHY = 256,
    WR_CONN_CARDS = 64 /* connections of a worker that can be seen one by one */
};

struct wr_backend_card {
    char name[WR_CARD_NAME];
    uint8_t critical, known, ok, unused[5];
    uint64_t elapsed_ns, at_ns;
    char message[192];
};

struct wr_check_card {
    char name[WR_CARD_NAME];
    uint8_t critical, known, ok, unused[5];
    uint64_t elapsed_ns, at_ns;
    char message[128];
};

struct wr_card {
    uint64_t process; /* whose it is, see wr_area_self */
    uint64_t opened_ns, opened_us, written_ns;
    uint64_t generation; /* of the policy in force here, 0: its own file's */
    uint64_t in_flight, allocations, connections;
    uint64_t pools; /* a bit per pool of the area that it has */
    uint32_t draining, policy_off;
    uint32_t backend_count, check_count;
    char host[WR_CARD_HOST];
    char policy_message[WR_CARD_WHY];
    struct wr_backend_card backend[WR_BACKENDS_MAX];
    struct wr_check_card check[WR_CHECKS_MAX];
};

/* A connection, in relaxed words of its own: who reads while it changes may mix two moments of it. */
struct wr_conn_card {
    _Atomic uint64_t id;          /* 0: nobody's */
    _Atomic uint64_t pool_pid;    /* pool's index << 32 | backend's pid */
    _Atomic uint64_t state_label; /* enum wr_conn_state << 32 | label of its call */
    _Atomic uint64_t since_ns, opened_ns;
    _Atomic uint64_t call; /* id of the call that holds it, 0 none */
};

/* The options in force, without what is secret. */
struct wr_client_card {
    char name[WR_CARD_NAME], user[64], role[64]; /* user "": as the connection string says */
    uint32_t kind, min, max, queue_max, multiplex, unused;
};

struct wr_server_card {
    char name[WR_CARD_NAME];
    char server[160]; /* where it is: host, port, database */
    uint32_t pooler, critical;
};

struct wr_options_card {
    uint64_t timeout_ns, connect_timeout_ns, acquire_timeout_ns, idle_timeout_ns, lifetime_ns, leak_after_ns;
    uint64_t cancel_wait_ns, queue_target_ns, queue_interval_ns, backoff_base_ns, backoff_cap_ns;
    uint64_t health_interval_ns, probe_interval_ns;
    uint64_t window_ns, slow_call_ns, open_for_ns, half_open_wait_ns, budget_window_ns;
    double connect_rate, backoff_factor, failure_rate, slow_rate, per_success, floor, cap;
    uint32_t connect_at_once, prepared_max, queue, reset, backoff, retries, retries_max, policy_faults_max;
    uint32_t window_calls, min_calls, consecutive, rates_off, permits, ratio;
    uint32_t client_count, backend_count;
    struct wr_client_card client[WR_CLIENTS_MAX];
    struct wr_server_card backend[WR_BACKENDS_MAX];
};

enum { WR_ACKS = 64, WR_ACK_WHY = 120 };

struct wr_ack {               /* a worker's word on an order, see order.h */
    _Atomic uint64_t verdict; /* ticket << 2 | enum wr_verdict */
    _Atomic uint64_t why[WR_ACK_WHY / 8];
};

struct wr_worker_record { /* in the area, one per worker */
    _Atomic uint64_t card_turn, options_turn;
    _Atomic uint64_t orders_from; /* orders up to this ticket are not this worker's to carry out */
    _Atomic uint64_t card[sizeof(struct wr_card) / 8];
    _Atomic uint64_t options[sizeof(struct wr_options_card) / 8];
    struct wr_ack ack[WR_ACKS];
    struct wr_conn_card conn[WR_CONN_CARDS];
};

void wr_card_write(struct weir_engine *engine);
void wr_options_write(struct weir_engine *engine); /* once, when the pools are there */

/* A worker's card, made fit for use; false: it has none. `gone`: also that of a worker that has closed or died. */
bool wr_card_read(const struct wr_area *area, uint32_t worker, bool gone, struct wr_card *card);

/* What all live workers say together, or, if none lives, what the last of the others said. */
struct wr_household {
    uint32_t workers;              /* that live */
    uint32_t told;                 /* whose cards are in here */
    uint64_t opened_ns, opened_us; /* of the oldest */
    uint64_t in_flight, allocations, pools;
    bool draining;   /* all of them */
    bool policy_off; /* one of them */
    char policy_message[WR_CARD_WHY];
    uint32_t backend_count, check_count;
    struct wr_backend_card backend[WR_BACKENDS_MAX]; /* the newest word on each */
    struct wr_check_card check[WR_CHECKS_MAX];
};
void wr_household_read(const struct wr_area *area, uint64_t now_ns, struct wr_household *out);

#endif
