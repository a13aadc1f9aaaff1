/* Listeners: finding a connection, keeping it, telling what comes and what may have been missed; see listener.h. */
#include "engine/listener.h"

#include "base/check.h"
#include "engine/outcome.h"
#include "engine/queue.h"

#include <stdlib.h>
#include <string.h>

#define LOOK_AGAIN_NS 20000000ull /* for a place that somebody gives up */

#define MS 1000000ull
enum { PROBE_WITHOUT_MONITOR_MS = 30000, BACKOFF_BASE_MS = 50, BACKOFF_CAP_MS = 2000 };

/* ---- telling ------------------------------------------------------------------------------------------------ */

/* Whatever the owner does inside, the listener is still there afterwards: freeing only marks it. */
static void tell(struct weir_listener *listener, const weir_listen_event *event)
{
    if (!listener->freed && listener->notify != NULL) listener->notify(listener->user, listener, event);
}

static void arm(struct weir_listener *listener, uint64_t delay_ns)
{
    wr_engine_arm(listener->engine, &listener->timer, wr_after(listener->engine->now, delay_ns));
}

static uint64_t answer_within(const struct weir_listener *listener)
{
    return listener->engine->config.options.connect_timeout_ns;
}

static uint64_t heard_within(const struct weir_listener *listener)
{
    uint64_t interval = listener->engine->config.options.health_interval_ns;
    return interval != 0 ? interval : PROBE_WITHOUT_MONITOR_MS * MS;
}

static void fill_error(weir_error *error, const struct weir_listener *listener, const struct wr_fault *fault,
                       bool connecting)
{
    struct wr_circumstances at = {.phase = connecting ? WEIR_PHASE_NOT_SENT : WEIR_PHASE_SENT,
                                  .no_effect = true,
                                  .connecting = connecting};
    struct wr_judgement judged = wr_outcome_judge(fault, &at);
    *error = (weir_error){.code = judged.code, .class_ = judged.class_, .phase = at.phase, .attempts = 1};
    wr_text_copy(error->sqlstate, sizeof error->sqlstate, fault->sqlstate);
    wr_text_copy(error->severity, sizeof error->severity, fault->severity);
    wr_text_copy(error->message, sizeof error->message, fault->message);
    wr_text_copy(error->detail, sizeof error->detail, fault->detail);
    wr_text_copy(error->hint, sizeof error->hint, fault->hint);
    wr_text_copy(error->context, sizeof error->context, "LISTEN");
    wr_text_copy(error->pool, sizeof error->pool, listener->pool->name);
}

/* ---- losing the connection ---------------------------------------------------------------------------------- */

static void let_go(struct weir_listener *listener, enum wr_counter reason)
{
    struct wr_conn *conn = listener->conn;
    struct wr_channel *channel;
    for (struct wr_list *at = listener->channels.next; at != &listener->channels; at = at->next) {
        channel = WR_CONTAINER(at, struct wr_channel, link);
        channel->asked = channel->there = false;
    }
    if (conn == NULL) return;
    wr_conn_close(conn, reason); /* clears listener->conn */
}

/* Once per outage the owner hears of it; what he may have missed he hears when it is over. */
static void fail(struct weir_listener *listener, const weir_error *error)
{
    struct weir_engine *engine = listener->engine;
    listener->state = WR_LISTENER_APART;
    listener->gap = listener->gap || listener->heard;
    arm(listener, weir_backoff_next(&listener->backoff, wr_rng_next(&engine->rng)));
    if (listener->lost_told) return;
    listener->lost_told = true;
    wr_engine_event(engine, WR_EVENT_CONNECT, listener->pool,
                    &(struct wr_event_facts){"listener.lost", WEIR_LOG_WARN, NULL, error->sqlstate},
                    "listener: %s: %s", weir_code_name(error->code), error->message);
    tell(listener, &(weir_listen_event){.kind = WEIR_LISTEN_LOST, .error = error});
}

void wr_listener_lost(struct weir_listener *listener, const struct wr_fault *fault)
{
    weir_error error;
    struct wr_pool *pool = listener->pool;
    fill_error(&error, listener, fault, false);
    let_go(listener, WR_N_CLOSED_ERROR);
    fail(listener, &error);
    wr_pool_serve(pool); /* its place may be what somebody waits for */
}

void wr_listener_unconnected(struct weir_listener *listener, const struct wr_fault *fault)
{
    weir_error error;
    fill_error(&error, listener, fault, true);
    fail(listener, &error);
}

/* ---- asking --------------------------------------------------------------------------------------------------- */

static void write_sql(struct wr_channel *channel)
{
    char *to = channel->sql;
    to += wr_text_copy(to, 16, channel->wanted ? "LISTEN \"" : "UNLISTEN \"");
    for (const char *from = channel->name; *from != '\0'; from++) {
        if (*from == '"') *to++ = '"';
        *to++ = *from;
    }
    *to++ = '"';
    *to = '\0';
}

static void drop_channel(struct weir_listener *listener, struct wr_channel *channel)
{
    wr_list_remove(&channel->link);
    listener->channel_count--;
    wr_free(&listener->memory, channel);
}

/* What is neither wanted nor there, nor being asked about, is nobody's. */
static void sweep(struct weir_listener *listener)
{
    struct wr_list *next;
    for (struct wr_list *at = listener->channels.next; at != &listener->channels; at = next) {
        struct wr_channel *channel = WR_CONTAINER(at, struct wr_channel, link);
        next = at->next;
        if (!channel->wanted && !channel->there && !channel->asked) drop_channel(listener, channel);
    }
}

/* The statements that make the session's channels those that are wanted. */
static size_t write_changes(struct weir_listener *listener)
{
    size_t count = 0;
    for (struct wr_list *at = listener->channels.next; at != &listener->channels; at = at->next) {
        struct wr_channel *channel = WR_CONTAINER(at, struct wr_channel, link);
        if (channel->wanted == channel->there) continue;
        channel->asked = true;
        write_sql(channel);
        listener->statements[count++] = (weir_statement){.sql = channel->sql};
    }
    return count;
}

static bool has_changes(const struct weir_listener *listener)
{
    for (const struct wr_list *at = listener->channels.next; at != &listener->channels; at = at->next) {
        const struct wr_channel *channel = WR_CONTAINER(at, struct wr_channel, link);
        if (channel->wanted != channel->there) return true;
    }
    return false;
}

static bool make_room(struct weir_listener *listener)
{
    if (listener->statement_room >= listener->channel_count) return true;
    weir_statement *grown = wr_resize(&listener->memory, listener->statements,
                                      listener->channel_count * sizeof *listener->statements);
    if (grown == NULL) return false;
    listener->statements = grown;
    listener->statement_room = listener->channel_count;
    return true;
}

static void send(struct weir_listener *listener, enum wr_listener_state state, struct wr_segment *segment)
{
    struct wr_fault fault = {.lost = true, .message = "out of memory"};
    const weir_driver *driver = listener->engine->driver;
    listener->state = state;
    arm(listener, answer_within(listener));
    bool room = state == WR_LISTENER_PROBING || make_room(listener);
    if (room && state == WR_LISTENER_ASKING) segment->count = write_changes(listener);
    segment->statements = listener->statements;
    if (!room || driver->send(listener->conn->server, segment, &fault) != WEIR_OK)
        wr_listener_lost(listener, &fault);
}

static void announce(struct weir_listener *listener)
{
    bool gap = listener->gap;
    if (listener->lost_told) {
        wr_engine_event(listener->engine, WR_EVENT_CONNECT, listener->pool,
                        &(struct wr_event_facts){.id = "listener.restored"}, "listener: listens again%s",
                        gap ? "; notifications may have been missed" : "");
    }
    listener->announce = listener->gap = listener->lost_told = false;
    listener->heard = true;
    weir_backoff_reset(&listener->backoff);
    tell(listener, &(weir_listen_event){.kind = WEIR_LISTENING, .gap = gap});
}

/* The connection is idle: what is next to be done on it? */
static void go_on(struct weir_listener *listener)
{
    if (has_changes(listener)) {
        listener->announce = true;
        send(listener, WR_LISTENER_ASKING, &(struct wr_segment){.kind = WR_SEGMENT_SINGLE});
        return;
    }
    listener->state = WR_LISTENER_AT_REST;
    arm(listener, heard_within(listener));
    if (listener->announce) announce(listener);
}

void wr_listener_connected(struct weir_listener *listener)
{
    listener->announce = true;
    go_on(listener);
}

void wr_listener_settled(struct weir_listener *listener, const struct wr_reply *reply)
{
    if (reply->failed) {
        struct wr_fault fault = reply->fault; /* of a LISTEN: another connection may be a better server's */
        wr_listener_lost(listener, &fault);
        return;
    }
    listener->conn->alive_at = listener->engine->now;
    for (struct wr_list *at = listener->channels.next; at != &listener->channels; at = at->next) {
        struct wr_channel *channel = WR_CONTAINER(at, struct wr_channel, link);
        if (channel->asked) channel->there = !channel->there;
        channel->asked = false;
    }
    sweep(listener);
    go_on(listener);
}

/* ---- finding a connection ------------------------------------------------------------------------------------- */

/* Every place is taken, by calls or by other workers. Nobody calls us when one is given up. */
static void wait_for_place(struct weir_listener *listener)
{
    struct weir_engine *engine = listener->engine;
    const weir_options *o = &engine->config.options;
    uint64_t patience = o->acquire_timeout_ns != 0 ? o->acquire_timeout_ns : o->connect_timeout_ns;
    if (listener->place_wanted_at == 0) listener->place_wanted_at = engine->now;
    if (engine->now - listener->place_wanted_at < patience || listener->lost_told) {
        arm(listener, LOOK_AGAIN_NS);
        return;
    }
    weir_error error = {.code = WEIR_CALL_ACQUIRE_TIMEOUT, .class_ = WEIR_CLASS_SAFE, .attempts = 1};
    wr_text_copy(error.context, sizeof error.context, "LISTEN");
    wr_text_copy(error.pool, sizeof error.pool, listener->pool->name);
    wr_text_format(error.message, sizeof error.message,
                   "no connection to listen on: a listener takes one of the pool's %u, and all are in use",
                   wr_pool_max(listener->pool));
    fail(listener, &error);
}

static void find_connection(struct weir_listener *listener)
{
    struct wr_pool *pool = listener->pool;
    struct wr_conn *conn = wr_pool_take_idle(pool);
    if (conn != NULL) {
        listener->place_wanted_at = 0;
        wr_conn_listen(conn, listener);
        wr_listener_connected(listener);
        return;
    }
    if (wr_pool_total(pool) < wr_pool_max(pool)) conn = wr_conn_open(pool, false);
    if (conn == NULL) {
        wait_for_place(listener);
        return;
    }
    listener->place_wanted_at = 0;
    listener->state = WR_LISTENER_CONNECTING;
    listener->conn = conn;
    conn->listener = listener;
}

/* ---- time ------------------------------------------------------------------------------------------------------- */

static void destroy(struct weir_listener *listener)
{
    struct wr_list *node;
    while ((node = wr_list_first(&listener->channels)) != NULL)
        drop_channel(listener, WR_CONTAINER(node, struct wr_channel, link));
    struct wr_memory memory = listener->memory;
    wr_free(&memory, listener->statements);
    wr_free(&memory, listener);
}

static void end(struct weir_listener *listener)
{
    struct wr_pool *pool = listener->pool;
    if (listener->state == WR_LISTENER_OVER) return;
    let_go(listener, WR_N_CLOSED_SHUTDOWN);
    listener->state = WR_LISTENER_OVER;
    wr_engine_disarm(listener->engine, &listener->timer);
    wr_pool_serve(pool);
    tell(listener, &(weir_listen_event){.kind = WEIR_LISTEN_OVER});
}

static void leave_engine(struct weir_listener *listener)
{
    wr_engine_disarm(listener->engine, &listener->timer);
    wr_list_remove(&listener->link);
    listener->engine->timers_made--;
    listener->engine = NULL;
    listener->pool = NULL;
}

/* No answer in time; or nothing was heard for long, and so it is asked. */
static void look_after(struct weir_listener *listener)
{
    uint64_t now = listener->engine->now, heard = listener->conn->alive_at;
    if (listener->state != WR_LISTENER_AT_REST) {
        struct wr_fault fault = {.lost = true, .unreachable = true};
        wr_text_copy(fault.message, sizeof fault.message,
                     "the server did not answer in time on the listener's connection");
        wr_listener_lost(listener, &fault);
    } else if (has_changes(listener)) {
        go_on(listener);
    } else if (now - heard < heard_within(listener)) {
        arm(listener, heard_within(listener) - (now - heard));
    } else {
        send(listener, WR_LISTENER_PROBING, &(struct wr_segment){.kind = WR_SEGMENT_PROBE});
    }
}

static void timer_fired(struct wr_timer *timer)
{
    struct weir_listener *listener = WR_CONTAINER(timer, struct weir_listener, timer);
    if (listener->freed || listener->engine->state != WR_ENGINE_OPEN) {
        end(listener);
        if (!listener->freed) return;
        leave_engine(listener);
        destroy(listener);
    } else if (listener->state == WR_LISTENER_APART) {
        find_connection(listener);
    } else if (listener->conn != NULL && listener->state != WR_LISTENER_CONNECTING) {
        look_after(listener);
    }
}

/* ---- notifications ---------------------------------------------------------------------------------------------- */

static struct wr_channel *find_channel(const struct weir_listener *listener, const char *name)
{
    for (struct wr_list *at = listener->channels.next; at != &listener->channels; at = at->next) {
        struct wr_channel *channel = WR_CONTAINER(at, struct wr_channel, link);
        if (strcmp(channel->name, name) == 0) return channel;
    }
    return NULL;
}

/* A session of the pool that somebody's own LISTEN has made hear things is nobody's listener: dropped. */
void wr_listener_notified(void *owner, const char *channel, const char *payload, uint32_t pid)
{
    struct wr_conn *conn = owner;
    struct weir_listener *listener = conn->listener;
    if (listener == NULL || conn->state != WR_CONN_LISTENING) return;
    conn->alive_at = conn->pool->engine->now;
    const struct wr_channel *found = find_channel(listener, channel);
    if (found == NULL || !found->wanted) return;
    tell(listener,
         &(weir_listen_event){.kind = WEIR_NOTIFICATION, .channel = channel, .payload = payload, .pid = pid});
}

/* ---- the engine's end --------------------------------------------------------------------------------------------- */

void wr_listeners_drain(struct weir_engine *engine)
{
    for (struct wr_list *at = engine->listeners.next; at != &engine->listeners; at = at->next)
        wr_engine_arm(engine, &WR_CONTAINER(at, struct weir_listener, link)->timer, engine->now);
}

void wr_listeners_end(struct weir_engine *engine)
{
    struct wr_list *node;
    while ((node = wr_list_first(&engine->listeners)) != NULL) {
        struct weir_listener *listener = WR_CONTAINER(node, struct weir_listener, link);
        end(listener);
        leave_engine(listener);
        if (listener->freed) {
            destroy(listener);
        } else {
            engine->orphans++; /* weir_listener_free comes later */
        }
    }
}

/* ---- the owner's functions ------------------------------------------------------------------------------------------ */

static int refuse(char *why, int code, const char *sentence)
{
    if (why != NULL) wr_text_copy(why, WEIR_WHY_MAX, sentence);
    return code;
}

static int check_channel(const char *name, char *why)
{
    size_t length = name == NULL ? 0 : strnlen(name, WEIR_CHANNEL_MAX + 1);
    if (length >= 1 && length <= WEIR_CHANNEL_MAX) return WEIR_OK;
    return refuse(why, WEIR_EINVAL,
                  length == 0
                      ? "a channel's name is empty"
                      : "a channel's name is longer than 63 bytes, which is where PostgreSQL cuts it");
}

static int want(struct weir_listener *listener, const char *name, char *why)
{
    int code = check_channel(name, why);
    if (code != WEIR_OK) return code;
    struct wr_channel *channel = find_channel(listener, name);
    if (channel == NULL) {
        if (listener->channel_count >= WEIR_CHANNELS_MAX)
            return refuse(why, WEIR_EINVAL, "a listener has at most 256 channels");
        channel = wr_alloc(&listener->memory, sizeof *channel);
        if (channel == NULL) return refuse(why, WEIR_ENOMEM, "out of memory");
        wr_list_init(&channel->link);
        wr_text_format(channel->name, sizeof channel->name, "%s", name);
        wr_list_append(&listener->channels, &channel->link);
        listener->channel_count++;
    }
    channel->wanted = true;
    return WEIR_OK;
}

/* At rest it is asked for at once; in any other state when that has come to its end. */
static void follow(struct weir_listener *listener)
{
    if (listener->state != WR_LISTENER_AT_REST || !has_changes(listener)) return;
    wr_engine_refresh(listener->engine);
    arm(listener, 0);
    wr_engine_rearm(listener->engine);
}

static int check_open(const struct weir_listener *listener, char *why)
{
    if (listener->engine != NULL && listener->state != WR_LISTENER_OVER &&
        listener->engine->state == WR_ENGINE_OPEN && wr_engine_is_ours(listener->engine))
        return WEIR_OK;
    return refuse(why, WEIR_ESTATE, "the listener is over: its engine drains or was closed");
}

int weir_listener_add(weir_listener *listener, const char *name, char *why)
{
    int code = check_open(listener, why);
    if (code == WEIR_OK) code = want(listener, name, why);
    if (code == WEIR_OK) follow(listener);
    return code;
}

int weir_listener_remove(weir_listener *listener, const char *name, char *why)
{
    int code = check_open(listener, why);
    if (code == WEIR_OK) code = check_channel(name, why);
    if (code != WEIR_OK) return code;
    struct wr_channel *channel = find_channel(listener, name);
    if (channel == NULL) return WEIR_OK;
    channel->wanted = false;
    sweep(listener);
    follow(listener);
    return WEIR_OK;
}

bool weir_listener_is_up(const weir_listener *listener)
{
    bool sound = listener->state == WR_LISTENER_AT_REST || listener->state == WR_LISTENER_PROBING;
    return sound && !has_changes(listener);
}

static struct wr_pool *find_pool(struct weir_engine *engine, const weir_listen_options *options, char *why)
{
    const weir_options *o = &engine->config.options;
    const char *backend = options->backend != NULL ? options->backend : o->backends[0].name;
    const char *client = options->client != NULL ? options->client : "";
    for (size_t i = 0; i < engine->pool_count; i++) {
        struct wr_pool *pool = &engine->pools[i];
        if (strcmp(pool->client->name, client) == 0 && strcmp(pool->backend->name, backend) == 0) return pool;
    }
    if (why != NULL)
        wr_text_format(why, WEIR_WHY_MAX, "listen: there is no client '%s' on a backend '%s'", client,
                       backend);
    return NULL;
}

static int check_pool(const struct wr_pool *pool, char *why)
{
    const char *objection = NULL;
    if (pool->client->kind == WEIR_ANON)
        objection = "an ANON client may not listen: LISTEN knows no row-level security, so whoever listens "
                    "reads every payload; use a SERVICE client";
    if (pool->backend->pooler)
        objection =
            "behind a transaction pooler nobody can listen: a session there is nobody's for long; name "
            "a backend that goes straight to the server";
    if (objection == NULL) return WEIR_OK;
    if (why != NULL) wr_text_format(why, WEIR_WHY_MAX, "listen on %s: %s", pool->name, objection);
    return WEIR_EINVAL;
}

static struct weir_listener *make(struct wr_pool *pool, const weir_listen_options *options)
{
    struct weir_engine *engine = pool->engine;
    if (wr_engine_reserve_timers(engine, 1) != WEIR_OK) return NULL;
    struct weir_listener *listener = wr_alloc(&engine->memory, sizeof *listener);
    if (listener == NULL) {
        engine->timers_made--;
        return NULL;
    }
    listener->engine = engine;
    listener->memory = engine->memory;
    listener->pool = pool;
    listener->timer.fire = timer_fired;
    listener->notify = options->notify;
    listener->user = options->user;
    wr_list_init(&listener->link);
    wr_list_init(&listener->channels);
    int code = weir_backoff_init(&listener->backoff, WEIR_BACKOFF_FULL, BACKOFF_BASE_MS * MS,
                                 BACKOFF_CAP_MS * MS, 2, NULL);
    WR_CHECK(code == WEIR_OK);
    wr_list_append(&engine->listeners, &listener->link);
    return listener;
}

int weir_listener_open(weir_listener **out, weir_engine *engine, const weir_listen_options *options,
                       char *why)
{
    *out = NULL;
    if (!wr_engine_is_ours(engine)) return refuse(why, WEIR_ESTATE, "the engine was opened before a fork");
    if (engine->state != WR_ENGINE_OPEN) return refuse(why, WEIR_ESTATE, "the engine is closing");
    struct wr_pool *pool = find_pool(engine, options, why);
    int code = pool == NULL ? WEIR_EINVAL : check_pool(pool, why);
    if (code != WEIR_OK) return code;
    wr_engine_refresh(engine);
    struct weir_listener *listener = make(pool, options);
    if (listener == NULL) return refuse(why, WEIR_ENOMEM, "out of memory");
    for (size_t i = 0; code == WEIR_OK && i < options->channel_count; i++)
        code = want(listener, options->channels[i], why);
    if (code != WEIR_OK) {
        leave_engine(listener);
        destroy(listener);
        return code;
    }
    arm(listener, 0);
    wr_engine_rearm(engine);
    *out = listener;
    return WEIR_OK;
}

void weir_listener_free(weir_listener *listener)
{
    if (listener == NULL || listener->freed) return;
    if (listener->engine == NULL) {
        struct weir_engine *bare = listener->memory.ctx; /* stays until the last orphan has gone */
        destroy(listener);
        if (--bare->orphans == 0) free(bare);
        return;
    }
    if (!wr_engine_is_ours(listener->engine)) return;
    listener->freed = true;
    wr_engine_refresh(listener->engine);
    arm(listener, 0);
    wr_engine_rearm(listener->engine);
}
