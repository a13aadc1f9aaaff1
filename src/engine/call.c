/* The life of a call, top to bottom:
 *   submitted -> routed -> admitted -> queued -> leased -> sent -> settled -> (backing off -> routed ...) -> over
 * Units of work branch off at `leased` (unit.c), lost COMMITs at `settled` (resolve.c), decisions about another attempt
 * are in retry.c, deadlines and cancels in lapse.c. */
#include "engine/call.h"

#include "base/check.h"
#include "engine/admission.h"
#include "engine/lane.h"
#include "engine/policy.h"
#include "engine/queue.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const unsigned call_may_enter[WR_CALL_STATES] = {
    [WR_CALL_NEW] = 1u << WR_CALL_QUEUED | 1u << WR_CALL_HELD | 1u << WR_CALL_SENT | 1u << WR_CALL_BACKOFF |
                    1u << WR_CALL_RESOLVE_WAIT | 1u << WR_CALL_RESOLVE_QUEUED | 1u << WR_CALL_RESOLVE_SENT |
                    1u << WR_CALL_OVER,
    [WR_CALL_QUEUED] = 1u << WR_CALL_NEW | 1u << WR_CALL_HELD | 1u << WR_CALL_SENT | 1u << WR_CALL_OVER,
    [WR_CALL_HELD] = 1u << WR_CALL_NEW | 1u << WR_CALL_SENT | 1u << WR_CALL_OVER,
    [WR_CALL_SENT] = 1u << WR_CALL_NEW | 1u << WR_CALL_HELD | 1u << WR_CALL_SENT | 1u << WR_CALL_OVERDUE |
                     1u << WR_CALL_OVER,
    [WR_CALL_OVERDUE] = 1u << WR_CALL_NEW | 1u << WR_CALL_HELD | 1u << WR_CALL_OVER,
    [WR_CALL_BACKOFF] = 1u << WR_CALL_NEW | 1u << WR_CALL_OVER,
    [WR_CALL_RESOLVE_WAIT] =
        1u << WR_CALL_NEW | 1u << WR_CALL_RESOLVE_QUEUED | 1u << WR_CALL_RESOLVE_SENT | 1u << WR_CALL_OVER,
    [WR_CALL_RESOLVE_QUEUED] =
        1u << WR_CALL_NEW | 1u << WR_CALL_RESOLVE_WAIT | 1u << WR_CALL_RESOLVE_SENT | 1u << WR_CALL_OVER,
    [WR_CALL_RESOLVE_SENT] = 1u << WR_CALL_NEW | 1u << WR_CALL_RESOLVE_WAIT | 1u << WR_CALL_OVER,
    [WR_CALL_OVER] = 0,
};

static bool waits_in_queue(enum wr_call_state state)
{
    return state == WR_CALL_QUEUED || state == WR_CALL_RESOLVE_QUEUED;
}

/* The only writer of call->state. */
void wr_call_enter(struct weir_call *call, enum wr_call_state next)
{
    WR_CHECK((call_may_enter[call->state] & (1u << next)) != 0);
    if (waits_in_queue(call->state)) {
        wr_queue_leave(call->pool, call);
    } else {
        wr_list_remove(&call->place);
    }
    wr_engine_disarm(call->engine, &call->wake);
    call->state = next;
    wr_list_append(waits_in_queue(next) ? &call->pool->waiters : &call->engine->calls[next], &call->place);
}

void wr_call_notice(struct weir_call *call, weir_status status)
{
    call->status = status;
    if (!call->abandoned && wr_list_empty(&call->notice))
        wr_list_append(&call->engine->notices, &call->notice);
}

/* ---- submitted ------------------------------------------------------------------------------------------------ */

static int take_in(weir_engine *engine, const weir_request *request, const weir_statement *statements,
                   size_t count, struct weir_call **out, char *why)
{
    struct weir_call *call = wr_call_new(engine);
    if (call == NULL) {
        wr_text_format(why, WEIR_WHY_MAX, "out of memory");
        return WEIR_ENOMEM;
    }
    int code = wr_call_keep_request(call, request, why);
    if (code == WEIR_OK && count > 0) code = wr_call_keep_statements(call, statements, count, why);
    if (code != WEIR_OK) {
        call->notify = NULL;
        wr_list_remove(&call->place);
        engine->call_count--;
        engine->in_flight--;
        wr_call_destroy(call);
        return code;
    }
    *out = call;
    return WEIR_OK;
}

static void label_call(struct weir_call *call)
{
    wr_policy_label(call->engine, call->context, call->label_text, sizeof call->label_text);
    call->label = wr_area_label(call->engine->area, call->label_text);
}

static void set_out(struct weir_call *call)
{
    struct weir_engine *engine = call->engine;
    label_call(call);
    weir_backoff_init(&call->backoff, engine->config.options.backoff, engine->config.options.backoff_base_ns,
                      engine->config.options.backoff_cap_ns, engine->config.options.backoff_factor, NULL);
    wr_engine_arm(engine, &call->deadline_timer, call->deadline);
    wr_call_attempt(call);
}

int weir_submit(weir_engine *engine, const weir_request *request, const weir_statement *statements,
                size_t count, weir_call **out, char *why)
{
    char unused[WEIR_WHY_MAX];
    if (why == NULL) why = unused;
    *out = NULL;
    int code = wr_call_check_request(engine, request, why);
    if (code == WEIR_OK && request->isolation != NULL) {
        wr_text_format(why, WEIR_WHY_MAX,
                       "isolation is for units of work: a single call has no BEGIN to carry it");
        code = WEIR_EINVAL;
    }
    if (code == WEIR_OK) code = wr_call_check_statements(engine, statements, count, true, why);
    if (code != WEIR_OK) return code;
    wr_engine_refresh(engine);
    struct weir_call *call = NULL;
    code = take_in(engine, request, statements, count, &call, why);
    if (code != WEIR_OK) return code;
    set_out(call);
    *out = call;
    wr_engine_rearm(engine);
    return WEIR_OK;
}

int weir_begin(weir_engine *engine, const weir_request *request, weir_call **out, char *why)
{
    char unused[WEIR_WHY_MAX];
    if (why == NULL) why = unused;
    *out = NULL;
    int code = wr_call_check_request(engine, request, why);
    if (code != WEIR_OK) return code;
    wr_engine_refresh(engine);
    struct weir_call *call = NULL;
    code = take_in(engine, request, NULL, 0, &call, why);
    if (code != WEIR_OK) return code;
    call->unit = true;
    set_out(call);
    *out = call;
    wr_engine_rearm(engine);
    return WEIR_OK;
}

/* ---- routed, admitted, queued ------------------------------------------------------------------------------------ */

static struct wr_pool *route(struct weir_call *call)
{
    struct weir_engine *engine = call->engine;
    size_t backends = engine->config.options.backend_count, backend;
    if (call->backend != NULL) {
        backend = wr_policy_find_backend(engine, call->backend);
    } else {
        weir_request view = {.client = call->client,
                             .context = call->context,
                             .claims = call->claims,
                             .isolation = call->isolation,
                             .traceparent = call->traceparent,
                             .readonly = call->readonly,
                             .idempotent = call->idempotent,
                             .timeout_ns = call->deadline - call->started};
        backend = wr_policy_route(engine, &view);
    }
    return &engine->pools[call->client_index * backends + backend];
}

static void add_in_flight(struct wr_pool *pool, int64_t n)
{
    _Atomic int64_t *gauge = &pool->meter->gauge[WR_G_IN_FLIGHT];
    int64_t value = atomic_load_explicit(gauge, memory_order_relaxed);
    atomic_store_explicit(gauge, value + n, memory_order_relaxed);
}

void wr_call_attempt(struct weir_call *call)
{
    struct weir_engine *engine = call->engine;
    if (call->state != WR_CALL_NEW) wr_call_enter(call, WR_CALL_NEW);
    wr_call_drop_results(call); /* what came before the error of the last attempt */
    call->attempt++;
    call->attempt_from = engine->now;
    call->server_ns = 0;
    call->phase = WEIR_PHASE_NOT_SENT;
    call->healed = call->begun = call->xid_asked = call->failed = call->overdue = call->dirty = false;
    call->has_effects = call->spoiled = call->faulted = false;
    call->transaction = 'I';
    call->xid = 0;
    if (call->attempt == 1) { /* a call stays with its pool, so that what a pool started is what it ended */
        call->pool = route(call);
        call->rides = call->pool->share > 0 && wr_lane_admits(call);
        wr_count(&call->pool->meter->counter[WR_N_STARTED], 1);
        add_in_flight(call->pool, 1);
        weir_budget_request(call->pool->budget, engine->now);
    }
    wr_record_attempt_start(call);
    if (engine->state != WR_ENGINE_OPEN) {
        wr_call_refuse(call, WEIR_CALL_DRAINING, WR_N_REFUSED_DRAINING, NULL, 0, "the engine is closing");
        return;
    }
    if (atomic_load_explicit(&call->pool->record->paused, memory_order_relaxed) != 0) {
        wr_call_refuse(call, WEIR_CALL_PAUSED, WR_N_REFUSED_PAUSED, NULL, 0, "pool %s is paused",
                       call->pool->name);
        return;
    }
    if (engine->now >= call->deadline) { /* a loop that stood still, or a clock that jumped */
        wr_call_refuse(call, WEIR_CALL_TIMEOUT, WR_N_REFUSED_ACQUIRE, NULL, 0,
                       "the deadline passed before the attempt");
        return;
    }
    if (!wr_breaker_admit(call)) return;
    wr_count(&call->pool->meter->counter[WR_N_ATTEMPTS], 1);
    if (!wr_queue_join(call->pool, call, false)) {
        uint64_t drained = call->pool->waiting * call->pool->service_floor_ns / wr_pool_max(call->pool);
        wr_call_refuse(call, WEIR_CALL_QUEUE_FULL, WR_N_REFUSED_QUEUE, NULL, drained,
                       "%zu calls wait for a connection of %s (max %u, queue_max %u)", call->pool->waiting,
                       call->pool->name, wr_pool_max(call->pool), call->pool->client->queue_max);
        return;
    }
    uint64_t patience = engine->config.options.acquire_timeout_ns;
    if (call->state == WR_CALL_QUEUED && patience != 0)
        wr_engine_arm(engine, &call->wake, engine->now + patience);
}

/* ---- leased, sent -------------------------------------------------------------------------------------------------- */

static struct wr_segment segment_of(const struct weir_call *call, enum wr_segment_kind kind)
{
    const weir_client *client = call->pool->client;
    uint64_t left = call->deadline > call->engine->now ? call->deadline - call->engine->now : 0;
    bool shared = call->conn->state == WR_CONN_SHARED;
    struct wr_segment segment = {.kind = kind, .readonly = call->readonly, .shared = shared};
    if (kind == WR_SEGMENT_SINGLE || kind == WR_SEGMENT_BEGIN || kind == WR_SEGMENT_MORE) {
        segment.statements = call->statements;
        segment.facts = call->facts;
        segment.count = call->statement_count;
        segment.want_xid = kind != WR_SEGMENT_SINGLE && !call->readonly && call->xid == 0;
        if (call->traced && call->engine->config.options.trace == WEIR_TRACE_COMMENT)
            segment.traceparent = call->traceparent;
        segment.timeout_ms = (left + 999999) / 1000000 + (left == 0);
    }
    if (kind == WR_SEGMENT_SINGLE || kind == WR_SEGMENT_BEGIN) {
        segment.isolation = call->isolation;
        segment.role = client->kind == WEIR_ANON ? client->role : NULL;
        segment.claims = call->claims;
        segment.application = call->context;
    }
    segment.xid = kind == WR_SEGMENT_XACT_STATUS ? call->xid : 0;
    return segment;
}

void wr_call_keep_fault(struct weir_call *call, const struct wr_fault *fault)
{
    call->fault = *fault;
    call->faulted = true;
}

bool wr_call_send(struct weir_call *call, enum wr_segment_kind kind)
{
    struct wr_segment segment = segment_of(call, kind);
    struct wr_conn *conn = call->conn;
    struct wr_fault fault;
    memset(&fault, 0, sizeof fault);
    call->sending = kind;
    call->sent_at = call->engine->now;
    if (call->engine->driver->send(conn->server, &segment, &fault) != WEIR_OK) {
        fault.lost = true;
        wr_call_keep_fault(call, &fault);
        wr_call_detach(call);
        if (segment.shared) {
            wr_lane_break(conn, &fault, WR_N_CLOSED_ERROR);
        } else {
            wr_conn_close(conn, WR_N_CLOSED_ERROR);
        }
        wr_pool_grow(call->pool); /* its place may be what somebody waits for */
        return false;
    }
    if (segment.shared) wr_lane_sent(conn, call);
    if (kind == WR_SEGMENT_COMMIT) {
        call->phase = WEIR_PHASE_COMMIT_SENT;
    } else if (call->phase == WEIR_PHASE_NOT_SENT) {
        call->phase = WEIR_PHASE_SENT;
    }
    return true;
}

static void leased_to_unit(struct weir_call *call)
{
    struct weir_engine *engine = call->engine;
    uint64_t leak_after = engine->config.options.leak_after_ns;
    wr_call_enter(call, WR_CALL_HELD);
    call->shown = true;
    if (leak_after != 0) wr_engine_arm(engine, &call->leak_timer, engine->now + leak_after);
    wr_call_notice(call, WEIR_READY);
}

bool wr_call_leased(struct weir_call *call, struct wr_conn *conn)
{
    struct weir_engine *engine = call->engine;
    bool resolving = call->state == WR_CALL_RESOLVE_QUEUED || call->state == WR_CALL_RESOLVE_WAIT;
    if (!wr_lane_board(conn, call)) wr_conn_lease(conn, call);
    if (resolving) {
        wr_resolve_leased(call, conn);
        return true;
    }
    call->leased_at = engine->now;
    if (!call->unit && !wr_call_send(call, WR_SEGMENT_SINGLE)) return false;
    wr_histogram_record_fine(&call->pool->meter->wait, engine->now - call->queued_from);
    wr_record_leased(call, conn);
    if (call->unit) {
        leased_to_unit(call);
    } else {
        wr_call_enter(call, WR_CALL_SENT);
    }
    return true;
}

/* ---- settled -------------------------------------------------------------------------------------------------------- */

void wr_call_drop_results(struct weir_call *call)
{
    for (size_t i = 0; i < call->result_count; i++) wr_result_release(&call->results[i]);
    call->result_count = 0;
}

bool wr_call_take_results(struct weir_call *call, struct wr_reply *reply)
{
    wr_call_drop_results(call);
    if (reply->count > call->result_room) {
        struct weir_result *grown = wr_resize(&call->memory, call->results, reply->count * sizeof *grown);
        if (grown == NULL) return false;
        call->results = grown;
        call->result_room = reply->count;
    }
    for (size_t i = 0; i < reply->count; i++) {
        call->results[i] = reply->results[i];
        reply->results[i] = (struct weir_result){NULL, NULL};
    }
    call->result_count = reply->count;
    return true;
}

void wr_call_settle_permit(struct weir_call *call, weir_verdict verdict, const char *code)
{
    if (!call->permit_held) return;
    call->permit_held = false;
    weir_evidence moved;
    struct wr_pool *pool = call->pool;
    if (weir_breaker_settle(pool->breaker, call->permit, verdict, call->server_ns, code, call->engine->now,
                            &moved)) {
        wr_breaker_moved(pool, &moved);
    }
}

struct wr_conn *wr_call_detach(struct weir_call *call)
{
    struct wr_conn *conn = call->conn;
    call->conn = NULL;
    wr_engine_disarm(call->engine, &call->leak_timer);
    if (call->leased_at != 0) /* looking a lost COMMIT up is not the call's own use */
        wr_histogram_record_fine(&call->pool->meter->hold, call->engine->now - call->leased_at);
    call->leased_at = 0;
    return conn;
}

void wr_call_let_go(struct weir_call *call)
{
    struct wr_conn *conn = wr_call_detach(call);
    if (conn == NULL) return;
    if (call->state == WR_CALL_SENT || call->state == WR_CALL_OVERDUE ||
        call->state == WR_CALL_RESOLVE_SENT) {
        if (conn->state == WR_CONN_SHARED) {
            wr_lane_leave(conn, call);
        } else {
            wr_conn_abandon(conn);
        }
    } else {
        wr_conn_give_back(conn, call->transaction, call->dirty);
    }
}

static void single_settled(struct weir_call *call, struct wr_reply *reply)
{
    struct wr_conn *conn = wr_call_detach(call);
    struct wr_fault fault;
    bool kept = true;
    if (reply->failed) fault = reply->fault;
    if (!reply->failed || !fault.lost) kept = wr_call_take_results(call, reply);
    wr_call_enter(call, WR_CALL_NEW);
    if (reply->failed && fault.lost) {
        wr_conn_close(conn, WR_N_CLOSED_ERROR);
        wr_pool_grow(call->pool);
        wr_call_failed(call, &fault, false);
        return;
    }
    call->phase = WEIR_PHASE_DONE;
    char transaction = reply->transaction;
    bool dirty = reply->dirty || call->dirty;
    if (reply->failed) {
        wr_call_failed(call, &fault, false);
    } else if (!kept) {
        wr_call_say(call, WEIR_CLASS_PERMANENT, WEIR_OUTCOME_COMMITTED,
                    "out of memory keeping the result; it was committed");
        wr_record_attempt_end(call, "", WEIR_CLASS_PERMANENT);
        wr_call_settle_permit(call, WEIR_NEUTRAL, NULL);
        wr_call_over(call, WEIR_CALL_NO_MEMORY);
    } else {
        wr_call_succeeded(call);
    }
    wr_conn_give_back(conn, transaction,
                      dirty); /* before any backoff runs, and after the breaker has heard */
}

void wr_call_settled(struct weir_call *call, struct wr_reply *reply)
{
    struct weir_engine *engine = call->engine;
    call->server_ns += engine->now - call->sent_at;
    call->conn->alive_at = engine->now;
    if (call->state == WR_CALL_RESOLVE_SENT) {
        wr_resolve_settled(call, reply);
        return;
    }
    if (reply->heal && !reply->fault.lost && !call->healed && call->state == WR_CALL_SENT) {
        call->healed = true;
        call->dirty = call->dirty || reply->dirty;
        wr_count(&call->pool->meter->counter[WR_N_HEALS], 1);
        if (wr_call_send(call, call->sending)) return;
        call->phase = WEIR_PHASE_NOT_SENT; /* what was sent before had no effect */
        wr_call_enter(call, WR_CALL_NEW);
        struct wr_fault fault = call->fault;
        wr_call_failed(call, &fault, false);
        return;
    }
    if (call->unit) {
        wr_unit_settled(call, reply);
    } else {
        single_settled(call, reply);
    }
}

void wr_call_succeeded(struct weir_call *call)
{
    struct wr_pool *pool = call->pool;
    uint64_t now = call->engine->now;
    wr_call_settle_permit(call, WEIR_SUCCESS, NULL);
    weir_budget_success(pool->budget, now);
    pool->last_success_at = now;
    pool->last_success_ns = call->server_ns;
    if (call->server_ns < pool->service_floor_ns || pool->service_floor_ns == 0) {
        pool->service_floor_ns = call->server_ns;
    } else {
        pool->service_floor_ns += pool->service_floor_ns / 64;
    }
    wr_record_attempt_end(call, "", WEIR_CLASS_NONE);
    call->error.outcome = WEIR_OUTCOME_COMMITTED;
    wr_call_over(call, WEIR_CALL_OK);
}

void wr_call_failed(struct weir_call *call, const struct wr_fault *fault, bool connecting)
{
    struct wr_fault kept = *fault;
    bool nothing_written =
        call->readonly || (call->unit && call->xid_asked && call->xid == 0 && !call->has_effects);
    struct wr_circumstances at = {call->phase, call->unit, nothing_written, connecting};
    struct wr_judgement j = wr_outcome_judge(&kept, &at);
    if (wr_call_timed_out(call, &kept)) {
        j.code = WEIR_CALL_TIMEOUT;
        j.verdict = WEIR_FAILURE;
        j.reason = "timeout";
    }
    if (call->state != WR_CALL_NEW) wr_call_enter(call, WR_CALL_NEW);
    weir_error *e = &call->error;
    wr_call_say(call, j.class_, j.outcome, kept.message);
    e->code = j.code;
    e->position = kept.position;
    wr_text_copy(e->sqlstate, sizeof e->sqlstate, kept.sqlstate);
    wr_text_copy(e->severity, sizeof e->severity, kept.severity);
    wr_text_copy(e->detail, sizeof e->detail, kept.detail);
    wr_text_copy(e->hint, sizeof e->hint, kept.hint);
    call->failed = true;
    wr_record_attempt_end(call, kept.sqlstate, j.class_);
    call->reason = wr_outcome_reason(j.reason);
    wr_count(&call->pool->meter->failed[call->reason], 1);
    wr_call_settle_permit(call, j.verdict, kept.sqlstate[0] != '\0' ? kept.sqlstate : j.reason);
    if (j.wrong_node) wr_pool_evict(call->pool);
    bool lost_commit = j.class_ == WEIR_CLASS_UNKNOWN && call->phase == WEIR_PHASE_COMMIT_SENT;
    bool may_ask = call->xid != 0 && !call->overdue && call->engine->state != WR_ENGINE_CLOSING;
    if (lost_commit && may_ask) {
        wr_resolve_start(call);
        return;
    }
    wr_retry_decide(call);
}

/* ---- over ------------------------------------------------------------------------------------------------------------ */

void wr_call_say(struct weir_call *call, weir_class class_, weir_outcome outcome, const char *message)
{
    weir_error *e = &call->error;
    bool earlier = outcome != WEIR_OUTCOME_COMMITTED && call->past > outcome;
    e->outcome = earlier ? call->past : outcome;
    e->class_ = e->outcome == WEIR_OUTCOME_UNKNOWN && class_ == WEIR_CLASS_SAFE ? WEIR_CLASS_UNKNOWN : class_;
    e->phase = call->phase;
    e->position = 0;
    e->retry_after_ns = 0;
    e->sqlstate[0] = e->severity[0] = e->detail[0] = e->hint[0] = e->evidence[0] = '\0';
    wr_text_copy(e->message, sizeof e->message, message[0] != '\0' ? message : "failed without a message");
}

void wr_call_refuse(struct weir_call *call, weir_code code, enum wr_counter counter,
                    const weir_evidence *evidence, uint64_t retry_after_ns, const char *format, ...)
{
    weir_error *e = &call->error;
    va_list arguments;
    va_start(arguments, format);
    char message[sizeof e->message];
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    wr_call_say(call, WEIR_CLASS_SAFE, WEIR_OUTCOME_NONE, message);
    e->retry_after_ns = retry_after_ns;
    if (evidence != NULL && evidence->rule != WEIR_RULE_NONE) {
        weir_evidence_text(evidence, e->evidence, sizeof e->evidence);
    } else {
        wr_text_copy(e->evidence, sizeof e->evidence,
                     message); /* the other guards' counts are in their sentence */
    }
    wr_count(&call->pool->meter->counter[counter], 1);
    wr_record_attempt_end(call, "", WEIR_CLASS_SAFE);
    wr_call_settle_permit(call, WEIR_NEUTRAL, NULL);
    wr_call_over(call, code);
}

static enum wr_counter counter_of(const weir_error *error)
{
    if (error->code == WEIR_CALL_OK) return WR_N_OK;
    if (error->outcome == WEIR_OUTCOME_UNKNOWN) return WR_N_UNKNOWN;
    switch (error->code) {
    case WEIR_CALL_TIMEOUT:
        return WR_N_TIMEOUT;
    case WEIR_CALL_CANCELLED:
        return WR_N_CANCELLED;
    case WEIR_CALL_BREAKER_OPEN:
    case WEIR_CALL_QUEUE_FULL:
    case WEIR_CALL_ACQUIRE_TIMEOUT:
    case WEIR_CALL_PAUSED:
    case WEIR_CALL_DRAINING:
        return WR_N_REFUSED;
    default:
        return WR_N_FAILED;
    }
}

static void count_series(struct weir_call *call, enum wr_counter counter, uint64_t duration_ns)
{
    struct wr_series_meter *series = wr_meter_series(call->engine->area, call->pool->index, call->label);
    _Atomic uint64_t *counts[] = {[WR_N_OK] = &series->ok,           [WR_N_FAILED] = &series->failed,
                                  [WR_N_REFUSED] = &series->refused, [WR_N_TIMEOUT] = &series->timeout,
                                  [WR_N_UNKNOWN] = &series->unknown, [WR_N_CANCELLED] = &series->cancelled};
    wr_count(counts[counter], 1);
    wr_histogram_record_coarse(&series->duration, duration_ns);
    if (call->attempt > 1) wr_count(&series->retries, call->attempt - 1);
}

void wr_call_over(struct weir_call *call, weir_code code)
{
    struct weir_engine *engine = call->engine;
    WR_CHECK(call->state != WR_CALL_OVER && call->conn == NULL && !call->permit_held);
    weir_error *e = &call->error;
    uint64_t duration = engine->now - call->started;
    e->code = code;
    e->attempts = call->attempt;
    call->failed = code != WEIR_CALL_OK;
    if (call->failed) {
        wr_text_copy(e->context, sizeof e->context, call->context);
        wr_text_copy(e->pool, sizeof e->pool, call->pool->name);
        if (call->unit) wr_call_drop_results(call);
    }
    enum wr_counter counter = counter_of(e);
    wr_count(&call->pool->meter->counter[counter], 1);
    wr_histogram_record_fine(&call->pool->meter->duration, duration);
    count_series(call, counter, duration);
    if (counter == WR_N_UNKNOWN) {
        wr_engine_event(engine, WR_EVENT_UNKNOWN, call->pool,
                        &(struct wr_event_facts){"call.unknown", WEIR_LOG_ERROR, call, e->sqlstate},
                        "outcome of '%.80s' is unknown after %u attempts: %.120s", call->context,
                        call->attempt, e->message);
    }
    wr_record_over(call);
    wr_log_over(call);
    wr_engine_disarm(engine, &call->deadline_timer);
    wr_engine_disarm(engine, &call->leak_timer);
    wr_call_enter(call, WR_CALL_OVER);
    engine->in_flight--;
    add_in_flight(call->pool, -1);
    wr_call_notice(call, WEIR_ENDED);
    if (call->abandoned) wr_call_recycle(call);
}
