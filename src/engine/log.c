/* What is put in the event log goes here too, from wr_engine_event, and each call that is over comes by. Lines of one sort
 * are bounded per second, so that an outage does not fill a disk with what one line says. */
#include "engine/log.h"

#include "base/logline.h"
#include "base/traceparent.h"
#include "engine/call.h"

#include <inttypes.h>
#include <string.h>

enum { NS_PER_S = 1000000000, EVENTS_PER_S = 50, SLOW_PER_S = 10, MSG_MAX = 1000, NAME_MAX_ESCAPED = 256 };

static const char *const level_names[] = {"info", "warn", "error"};

static bool is_wanted(const struct weir_engine *engine, weir_log_level level)
{
    return engine->log.open && level >= engine->config.options.log_level;
}

/* ---- lines ---- */

static void begin_line(struct wr_log_line *line, const struct weir_engine *engine, uint64_t at_us,
                       weir_log_level level, const char *event)
{
    wr_log_begin(line, engine->config.options.log_json);
    wr_log_time(line, "ts", at_us);
    wr_log_text(line, "level", level_names[level], 16);
    wr_log_text(line, "event", event, 64);
}

static void add_source(struct wr_log_line *line, const struct weir_engine *engine, const struct wr_pool *pool)
{
    wr_log_text(line, "name", engine->config.options.name, NAME_MAX_ESCAPED);
    wr_log_count(line, "worker", wr_area_worker(engine->area));
    if (pool != NULL) wr_log_text(line, "pool", pool->name, NAME_MAX_ESCAPED);
}

static void add_call(struct wr_log_line *line, const struct weir_call *call)
{
    wr_log_hex(line, "call_id", call->record.id);
    wr_log_text(line, "label", call->label_text, NAME_MAX_ESCAPED);
    if (!call->traced) return;
    wr_log_part(line, "trace_id", call->traceparent + WR_TRACE_ID_AT, WR_TRACE_ID_LENGTH);
    wr_log_part(line, "span_id", call->traceparent + WR_SPAN_ID_AT, WR_SPAN_ID_LENGTH);
    wr_log_part(line, "trace_flags", call->traceparent + WR_TRACE_FLAGS_AT, WR_TRACE_FLAGS_LENGTH);
}

static bool deliver(struct weir_engine *engine, weir_log_level level, struct wr_log_line *line)
{
    wr_log_end(line);
    if (engine->config.options.log_to != NULL)
        return wr_sink_write(&engine->log.sink, line->text, line->length);
    line->text[--line->length] = '\0';
    return engine->host.log(engine->host.log_ctx, level, line->text, line->length);
}

/* Before the first line that gets through again. */
static bool tell_lost(struct weir_engine *engine, uint64_t at_us)
{
    struct wr_log_line line;
    if (engine->log.lost == 0) return true;
    begin_line(&line, engine, at_us, WEIR_LOG_WARN, "log.lost");
    wr_log_text(&line, "msg", "lines were lost: nobody took them in time", MSG_MAX);
    add_source(&line, engine, NULL);
    wr_log_count(&line, "lost", engine->log.lost);
    if (!deliver(engine, WEIR_LOG_WARN, &line)) return false;
    engine->log.lost = 0;
    return true;
}

static void emit(struct weir_engine *engine, weir_log_level level, uint64_t at_us, struct wr_log_line *line)
{
    if (!tell_lost(engine, at_us) || !deliver(engine, level, line)) engine->log.lost++;
}

/* ---- how many ---- */

static void tell_suppressed(struct weir_engine *engine, struct wr_log_flow *flow)
{
    struct wr_log_line line;
    char text[80];
    uint32_t count = flow->suppressed;
    flow->suppressed = 0;
    if (count == 0) return;
    uint64_t at_us = engine->host.wall_us(engine->host.ctx);
    wr_text_format(text, sizeof text, "%" PRIu32 " lines about %s suppressed", count, flow->what);
    begin_line(&line, engine, at_us, WEIR_LOG_WARN, "log.suppressed");
    wr_log_text(&line, "msg", text, MSG_MAX);
    add_source(&line, engine, NULL);
    wr_log_count(&line, "suppressed", count);
    emit(engine, WEIR_LOG_WARN, at_us, &line);
}

/* Tells when a second is over, even if no more lines come. */
static void flow_timer_fired(struct wr_timer *timer)
{
    struct weir_engine *engine = WR_CONTAINER(timer, struct weir_engine, log.flow_timer);
    struct wr_log_flow *const flows[] = {&engine->log.events, &engine->log.slow};
    for (size_t i = 0; i < sizeof flows / sizeof *flows; i++) {
        uint64_t over_ns = flows[i]->from_ns + NS_PER_S;
        if (flows[i]->suppressed == 0) continue;
        if (engine->now >= over_ns)
            tell_suppressed(engine, flows[i]);
        else
            wr_engine_arm(engine, timer, over_ns);
    }
}

static bool may_flow(struct weir_engine *engine, struct wr_log_flow *flow, uint32_t most)
{
    if (engine->now - flow->from_ns >= NS_PER_S) {
        tell_suppressed(engine, flow);
        flow->from_ns = engine->now;
        flow->lines = 0;
    }
    if (flow->lines < most) {
        flow->lines++;
        return true;
    }
    if (flow->suppressed++ == 0 && !wr_timer_armed(&engine->log.flow_timer))
        wr_engine_arm(engine, &engine->log.flow_timer, flow->from_ns + NS_PER_S);
    return false;
}

/* ---- events ---- */

static weir_log_level level_of(enum wr_event_kind kind)
{
    switch (kind) {
    case WR_EVENT_IDENTITY:
        return WEIR_LOG_ERROR;
    case WR_EVENT_AREA:
    case WR_EVENT_ENGINE:
    case WR_EVENT_OPERATOR:
        return WEIR_LOG_INFO;
    default:
        return WEIR_LOG_WARN;
    }
}

void wr_log_event(struct weir_engine *engine, enum wr_event_kind kind, const struct wr_pool *pool,
                  const struct wr_event_facts *facts, uint64_t at_us, const char *text)
{
    struct wr_event_facts plain = {.level = level_of(kind)};
    struct wr_log_line line;
    if (facts == NULL) facts = &plain;
    if (!is_wanted(engine, facts->level) || !may_flow(engine, &engine->log.events, EVENTS_PER_S)) return;
    begin_line(&line, engine, at_us, facts->level, facts->id != NULL ? facts->id : wr_event_kind_name(kind));
    wr_log_text(&line, "msg", text, MSG_MAX);
    add_source(&line, engine, pool);
    wr_log_text(&line, "sqlstate", facts->sqlstate, 16);
    if (facts->call != NULL) {
        add_call(&line, facts->call);
        wr_log_count(&line, "attempt", facts->call->attempt);
    }
    emit(engine, facts->level, at_us, &line);
}

/* ---- slow calls ---- */

static void json_attempt(char *to, size_t size, uint32_t number, const struct wr_recorded_attempt *a)
{
    wr_text_format(to, size,
                   "{\"attempt\":%u,\"start_us\":%u,\"wait_us\":%u,\"connect_us\":%u,\"run_us\":%u,"
                   "\"backoff_us\":%u,\"backend_pid\":%u,\"sqlstate\":\"%s\"}",
                   number, a->start_us, a->wait_us, a->connect_us, a->run_us, a->backoff_us, a->backend_pid,
                   a->sqlstate);
}

static void plain_attempt(char *to, size_t size, uint32_t number, const struct wr_recorded_attempt *a)
{
    wr_text_format(to, size, "%u: start %u wait %u connect %u run %u backoff %u pid %u%s%s", number,
                   a->start_us, a->wait_us, a->connect_us, a->run_us, a->backoff_us, a->backend_pid,
                   a->sqlstate[0] != '\0' ? " " : "", a->sqlstate);
}

/* In whole microseconds, as in the flight recorder; of many attempts the last ones, as there. */
static void add_timeline(struct wr_log_line *line, const struct wr_recorded_call *r)
{
    char text[WR_RECORD_ATTEMPTS * 192 + 8];
    size_t length = 0;
    uint32_t kept = r->attempts < WR_RECORD_ATTEMPTS ? r->attempts : WR_RECORD_ATTEMPTS;
    if (line->json) length = wr_text_format(text, sizeof text, "[");
    for (uint32_t i = 0; i < kept; i++) {
        char attempt[192];
        uint32_t number = r->attempts - kept + i + 1;
        (line->json ? json_attempt : plain_attempt)(attempt, sizeof attempt, number, &r->attempt[i]);
        length += wr_text_format(text + length, sizeof text - length, "%s%s",
                                 i == 0       ? ""
                                 : line->json ? ","
                                              : "; ",
                                 attempt);
    }
    if (line->json) wr_text_format(text + length, sizeof text - length, "]");
    wr_log_raw(line, line->json ? "timeline" : "timeline_us", text);
}

void wr_log_over(struct weir_call *call)
{
    struct weir_engine *engine = call->engine;
    const struct wr_recorded_call *r = &call->record;
    uint64_t threshold = engine->config.options.slow_log_ns;
    if (threshold == 0 || r->duration_ns <= threshold || !is_wanted(engine, WEIR_LOG_WARN)) return;
    if (!may_flow(engine, &engine->log.slow, SLOW_PER_S)) return;
    struct wr_log_line line;
    char text[80];
    uint64_t at_us = r->started_us + r->duration_ns / 1000;
    wr_text_format(text, sizeof text, "a call took longer than %" PRIu64 " ms", threshold / 1000000);
    begin_line(&line, engine, at_us, WEIR_LOG_WARN, "call.slow");
    wr_log_text(&line, "msg", text, MSG_MAX);
    add_source(&line, engine, call->pool);
    add_call(&line, call);
    wr_log_ms(&line, "duration_ms", r->duration_ns / 1000);
    wr_log_text(&line, "code", weir_code_name((weir_code)r->code), 64);
    wr_log_text(&line, "outcome", weir_outcome_name((weir_outcome)r->outcome), 64);
    wr_log_text(&line, "sqlstate", r->sqlstate, 16);
    wr_log_count(&line, "attempts", r->attempts);
    add_timeline(&line, r);
    emit(engine, WEIR_LOG_WARN, at_us, &line);
}

/* ---- opening and closing ---- */

int wr_log_open(struct weir_engine *engine, char *why)
{
    const weir_options *o = &engine->config.options;
    engine->log.flow_timer.fire = flow_timer_fired;
    engine->log.sink.fd = -1;
    engine->log.events.what = "events";
    engine->log.slow.what = "slow calls";
    if (o->log_level == WEIR_LOG_OFF) return WEIR_OK;
    if (o->slow_log_ns > 0 && o->log_to == NULL && engine->host.log == NULL) {
        wr_text_format(why, WEIR_WHY_MAX,
                       "slow_log is %.3f s, but there is no log for slow calls to be in: give log",
                       (double)o->slow_log_ns / 1e9);
        return WEIR_EINVAL;
    }
    if (o->log_to == NULL && engine->host.log == NULL) return WEIR_OK;
    int code = o->log_to == NULL ? WEIR_OK : wr_sink_open(&engine->log.sink, o->log_to, why);
    engine->log.open = code == WEIR_OK;
    return code;
}

void wr_log_close(struct weir_engine *engine)
{
    if (!engine->log.open) return;
    tell_suppressed(engine, &engine->log.events);
    tell_suppressed(engine, &engine->log.slow);
    wr_engine_disarm(engine, &engine->log.flow_timer);
    wr_sink_close(&engine->log.sink);
    engine->log.open = false;
}

const char *weir_log_path(const weir_engine *engine)
{
    return engine->log.open ? engine->log.sink.path : NULL;
}

int weir_log_reopen(weir_engine *engine, char *why)
{
    char unused[WEIR_WHY_MAX];
    if (!engine->log.open || !wr_engine_is_ours(engine)) return WEIR_OK;
    return wr_sink_reopen(&engine->log.sink, why != NULL ? why : unused);
}
