/* Workers, connections and options as JSON; see weir/area.h. */
#include "area/policytext.h"
#include "engine/order.h"
#include "engine/pool.h"
#include "engine/sight.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static double seconds(uint64_t ns)
{
    return (double)ns / 1e9;
}

/* Of a moment that another process wrote down: never negative. */
static double age(const struct weir_area *sight, uint64_t at_ns)
{
    return at_ns != 0 && sight->now_ns > at_ns ? seconds(sight->now_ns - at_ns) : 0;
}

static void text_field(struct wr_buffer *b, const char *name, const char *text)
{
    wr_buffer_printf(b, ",\"%s\":", name);
    wr_buffer_json_string(b, text);
}

/* ---- workers --------------------------------------------------------------------------------------------------- */

/* Bytes in memory, 0 if that cannot be found out. */
static uint64_t resident(uint64_t pid)
{
    char path[64], text[128];
    wr_text_format(path, sizeof path, "/proc/%llu/statm", (unsigned long long)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    ssize_t got = read(fd, text, sizeof text - 1);
    (void)close(fd);
    if (got <= 0) return 0;
    text[got] = '\0';
    const char *second = strchr(text, ' ');
    return second == NULL ? 0 : strtoull(second, NULL, 10) * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void worker_line(struct weir_area *sight, struct wr_buffer *b, uint32_t worker,
                        const struct wr_card *card)
{
    uint64_t pid = wr_area_worker_pid(sight->area, worker);
    uint64_t heard = wr_area_worker_heartbeat(sight->area, worker);
    wr_buffer_printf(b, "{\"worker\":%u,\"pid\":%llu,\"opened_us\":%llu", worker, (unsigned long long)pid,
                     (unsigned long long)card->opened_us);
    text_field(b, "host", card->host);
    wr_buffer_printf(b, ",\"heartbeat_age\":%.3f,\"uptime\":%.3f", age(sight, heard),
                     age(sight, card->opened_ns));
    wr_buffer_printf(b, ",\"policy_generation\":%llu,\"policy_off\":%s,\"draining\":%s",
                     (unsigned long long)card->generation, card->policy_off != 0 ? "true" : "false",
                     card->draining != 0 ? "true" : "false");
    wr_buffer_printf(b, ",\"connections\":%llu,\"in_flight\":%llu,\"rss\":%llu}",
                     (unsigned long long)card->connections, (unsigned long long)card->in_flight,
                     (unsigned long long)resident(pid));
}

void wr_document_workers(struct weir_area *sight, struct wr_buffer *b, uint64_t argument)
{
    struct wr_card card;
    bool first = true;
    (void)argument;
    wr_buffer_printf(b, "[");
    for (uint32_t worker = 1; worker <= wr_area_workers_used(sight->area); worker++) {
        if (!wr_area_worker_alive(sight->area, worker) || !wr_card_read(sight->area, worker, false, &card))
            continue;
        if (!first) wr_buffer_printf(b, ",");
        first = false;
        worker_line(sight, b, worker, &card);
    }
    wr_buffer_printf(b, "]");
}

/* ---- connections ----------------------------------------------------------------------------------------------- */

static uint64_t word(const _Atomic uint64_t *from)
{
    return atomic_load_explicit(from, memory_order_relaxed);
}

static void conn_line(struct weir_area *sight, struct wr_buffer *b, uint32_t worker,
                      const struct wr_conn_card *conn)
{
    uint64_t place = word(&conn->pool_pid), state = word(&conn->state_label), call = word(&conn->call);
    wr_buffer_printf(b, "{\"id\":%llu,\"worker\":%u", (unsigned long long)word(&conn->id), worker);
    text_field(b, "pool", wr_sight_pool_name(sight, (uint32_t)(place >> 32), "?"));
    text_field(b, "state", wr_conn_state_name((uint32_t)(state >> 32)));
    wr_buffer_printf(b, ",\"backend_pid\":%u,\"since\":%.3f,\"age\":%.3f", (uint32_t)place,
                     age(sight, word(&conn->since_ns)), age(sight, word(&conn->opened_ns)));
    text_field(b, "label", call == 0 ? "" : wr_sight_label(sight, (uint32_t)state));
    if (call == 0) wr_buffer_printf(b, ",\"call\":\"\"}");
    if (call != 0) wr_buffer_printf(b, ",\"call\":\"%llx\"}", (unsigned long long)call);
}

void wr_document_conns(struct weir_area *sight, struct wr_buffer *b, uint64_t argument)
{
    bool first = true;
    (void)argument;
    wr_buffer_printf(b, "[");
    for (uint32_t worker = 1; worker <= wr_area_workers_used(sight->area); worker++) {
        const struct wr_worker_record *record = wr_area_worker_record(sight->area, worker);
        if (!wr_area_worker_alive(sight->area, worker)) continue;
        for (int i = 0; i < WR_CONN_CARDS; i++) {
            if (word(&record->conn[i].id) == 0) continue;
            if (!first) wr_buffer_printf(b, ",");
            first = false;
            conn_line(sight, b, worker, &record->conn[i]);
        }
    }
    wr_buffer_printf(b, "]");
}

/* ---- options --------------------------------------------------------------------------------------------------- */

static void field(struct wr_buffer *b, const char *name, double number)
{
    wr_buffer_printf(b, ",\"%s\":", name);
    wr_json_number(b, number, number == floor(number) ? 0 : 6);
}

static void time_field(struct wr_buffer *b, const char *name, uint64_t ns)
{
    field(b, name, seconds(ns));
}

static const char *word_of(const char *const *words, size_t count, uint32_t number)
{
    return number < count ? words[number] : "?";
}

#define WORD_OF(words, number) word_of(words, sizeof(words) / sizeof *(words), number)

static void knobs(struct wr_buffer *b, const struct wr_options_card *c)
{
    static const char *const queues[] = {"adaptive", "fifo", "codel"}, *const resets[] = {"auto", "always",
                                                                                          "never"};
    time_field(b, "timeout", c->timeout_ns);
    time_field(b, "connect_timeout", c->connect_timeout_ns);
    time_field(b, "acquire_timeout", c->acquire_timeout_ns);
    time_field(b, "idle_timeout", c->idle_timeout_ns);
    time_field(b, "lifetime", c->lifetime_ns);
    time_field(b, "leak_after", c->leak_after_ns);
    time_field(b, "cancel_wait", c->cancel_wait_ns);
    field(b, "connect_at_once", c->connect_at_once);
    field(b, "connect_rate", c->connect_rate);
    field(b, "prepared", c->prepared_max);
    text_field(b, "queue", WORD_OF(queues, c->queue));
    time_field(b, "queue_target", c->queue_target_ns);
    time_field(b, "queue_interval", c->queue_interval_ns);
    text_field(b, "reset", WORD_OF(resets, c->reset));
    time_field(b, "health_interval", c->health_interval_ns);
    time_field(b, "probe_interval", c->probe_interval_ns);
    field(b, "policy_faults", c->policy_faults_max);
}

static void retries(struct wr_buffer *b, const struct wr_options_card *c)
{
    static const char *const kinds[] = {"full", "equal", "decorrelated", "exponential", "constant"};
    field(b, "retries", c->retries);
    field(b, "retries_max", c->retries_max);
    wr_buffer_printf(b, ",\"backoff\":{\"kind\":\"%s\"", WORD_OF(kinds, c->backoff));
    time_field(b, "base", c->backoff_base_ns);
    time_field(b, "cap", c->backoff_cap_ns);
    field(b, "factor", c->backoff_factor);
    wr_buffer_printf(b, "},\"budget\":{\"kind\":\"%s\"", c->ratio != 0 ? "ratio" : "tokens");
    field(b, "per_success", c->per_success);
    field(b, "floor", c->floor);
    field(b, "cap", c->cap);
    wr_buffer_printf(b, "}");
}

static void breaker(struct wr_buffer *b, const struct wr_options_card *c)
{
    wr_buffer_printf(b, ",\"breaker\":{\"rates\":%s", c->rates_off != 0 ? "false" : "true");
    if (c->window_calls == 0) time_field(b, "window", c->window_ns);
    if (c->window_calls != 0) field(b, "window_calls", c->window_calls);
    field(b, "min_calls", c->min_calls);
    field(b, "failure_rate", c->failure_rate);
    time_field(b, "slow_call", c->slow_call_ns);
    field(b, "slow_rate", c->slow_rate);
    field(b, "consecutive", c->consecutive);
    time_field(b, "open_for", c->open_for_ns);
    field(b, "permits", c->permits);
    time_field(b, "half_open_wait", c->half_open_wait_ns);
    wr_buffer_printf(b, "}");
}

static void clients(struct wr_buffer *b, struct wr_options_card *c)
{
    wr_buffer_printf(b, ",\"clients\":[");
    for (uint32_t i = 0; i < c->client_count && i < WR_CLIENTS_MAX; i++) {
        struct wr_client_card *client = &c->client[i];
        client->name[sizeof client->name - 1] = client->user[sizeof client->user - 1] = '\0';
        client->role[sizeof client->role - 1] = '\0';
        wr_buffer_printf(b, "%s{\"kind\":\"%s\"", i > 0 ? "," : "",
                         client->kind == WEIR_ANON ? "anon" : "service");
        text_field(b, "name", client->name);
        text_field(b, "user", client->user);
        text_field(b, "role", client->role);
        field(b, "min", client->min);
        field(b, "max", client->max);
        field(b, "queue_max", client->queue_max);
        field(b, "multiplex", client->multiplex);
        wr_buffer_printf(b, "}");
    }
    wr_buffer_printf(b, "]");
}

static void backends(struct wr_buffer *b, struct wr_options_card *c)
{
    wr_buffer_printf(b, ",\"backends\":[");
    for (uint32_t i = 0; i < c->backend_count && i < WR_BACKENDS_MAX; i++) {
        struct wr_server_card *backend = &c->backend[i];
        backend->name[sizeof backend->name - 1] = backend->server[sizeof backend->server - 1] = '\0';
        wr_buffer_printf(b, "%s{\"pooler\":%s,\"critical\":%s", i > 0 ? "," : "",
                         backend->pooler != 0 ? "true" : "false", backend->critical != 0 ? "true" : "false");
        text_field(b, "name", backend->name);
        text_field(b, "server", backend->server);
        wr_buffer_printf(b, "}");
    }
    wr_buffer_printf(b, "]");
}

/* Whose options are told: our own, else those of the worker that opened last; of the dead only if nobody lives. */
static uint32_t whose(const struct weir_area *sight)
{
    struct wr_card card;
    uint32_t newest = wr_area_worker(sight->area);
    uint64_t opened = 0;
    bool gone = sight->household.workers == 0;
    if (newest != 0) return newest;
    for (uint32_t worker = 1; worker <= wr_area_workers_used(sight->area); worker++) {
        if (!wr_card_read(sight->area, worker, gone, &card) || card.opened_us < opened) continue;
        newest = worker;
        opened = card.opened_us;
    }
    return newest;
}

void wr_document_config(struct weir_area *sight, struct wr_buffer *b, uint64_t argument)
{
    struct wr_options_card card;
    uint32_t worker = whose(sight);
    const struct wr_worker_record *record = worker == 0 ? NULL : wr_area_worker_record(sight->area, worker);
    (void)argument;
    wr_buffer_printf(b, "{\"version\":\"%s\",\"worker\":%u", WEIR_VERSION, worker);
    text_field(b, "name", wr_area_name(sight->area));
    text_field(b, "area", weir_area_path(sight));
    wr_buffer_printf(b, ",\"policy_generation\":%llu", (unsigned long long)wr_policy_generation(sight->area));
    if (record != NULL && wr_sheet_get(&record->options_turn, &card, record->options, sizeof card / 8)) {
        knobs(b, &card);
        retries(b, &card);
        breaker(b, &card);
        clients(b, &card);
        backends(b, &card);
    }
    wr_buffer_printf(b, "}");
}
