/* The families of /metrics, sorted by name. Only what the engine counts has a family. See families.h. */
#include "web/families.h"

#include "weir/metrics.h"

#define END                                                                                                  \
    {                                                                                                        \
        NULL, 0                                                                                              \
    }
#define IN_POOL(field, label)                                                                                \
    {                                                                                                        \
        label, offsetof(weir_pool_figures, field)                                                            \
    }
#define OF_POOL(field)                                                                                       \
    (const struct wr_sample[])                                                                               \
    {                                                                                                        \
        IN_POOL(field, NULL), END                                                                            \
    }

static const struct wr_sample calls[] = {
    {"outcome=\"ok\"", offsetof(weir_label_figures, ended.ok)},
    {"outcome=\"failed\"", offsetof(weir_label_figures, ended.failed)},
    {"outcome=\"rejected\"", offsetof(weir_label_figures, ended.refused)},
    {"outcome=\"timeout\"", offsetof(weir_label_figures, ended.timeout)},
    {"outcome=\"unknown\"", offsetof(weir_label_figures, ended.unknown)},
    {"outcome=\"cancelled\"", offsetof(weir_label_figures, ended.cancelled)},
    END,
};
static const struct wr_sample call_duration[] = {{NULL, offsetof(weir_label_figures, duration)}, END};
static const struct wr_sample connections[] = {
    IN_POOL(idle, "state=\"idle\""),
    IN_POOL(busy, "state=\"used\""),
    IN_POOL(connecting, "state=\"connecting\""),
    IN_POOL(canceling, "state=\"abandoned\""),
    END,
};
static const struct wr_sample closed[] = {
    IN_POOL(closed_idle, "reason=\"idle\""),
    IN_POOL(closed_lifetime, "reason=\"lifetime\""),
    IN_POOL(closed_error, "reason=\"error\""),
    IN_POOL(closed_server, "reason=\"server\""),
    IN_POOL(closed_cancel, "reason=\"cancel\""),
    IN_POOL(closed_shutdown, "reason=\"shutdown\""),
    END,
};
static const struct wr_sample rejected[] = {
    IN_POOL(refused_breaker, "reason=\"breaker_open\""), IN_POOL(refused_queue, "reason=\"queue_full\""),
    IN_POOL(refused_acquire, "reason=\"pool_timeout\""), IN_POOL(refused_paused, "reason=\"paused\""),
    IN_POOL(refused_draining, "reason=\"draining\""),    END,
};
static const struct wr_sample denied[] = {
    IN_POOL(denied_budget, "reason=\"budget\""),
    IN_POOL(denied_deadline, "reason=\"deadline\""),
    IN_POOL(denied_unsafe, "reason=\"not_idempotent\""),
    IN_POOL(denied_max, "reason=\"max_attempts\""),
    END,
};
static const struct wr_sample transitions[] = {
    IN_POOL(breaker.entered[WEIR_CLOSED], "to=\"closed\""),
    IN_POOL(breaker.entered[WEIR_OPEN], "to=\"open\""),
    IN_POOL(breaker.entered[WEIR_HALF_OPEN], "to=\"half_open\""),
    IN_POOL(breaker.entered[WEIR_FORCED_OPEN], "to=\"forced_open\""),
    IN_POOL(breaker.entered[WEIR_FORCED_CLOSED], "to=\"forced_closed\""),
    IN_POOL(breaker.entered[WEIR_DISABLED], "to=\"disabled\""),
    IN_POOL(breaker.entered[WEIR_METRICS_ONLY], "to=\"metrics_only\""),
    END,
};
static const struct wr_sample resolved[] = {
    IN_POOL(resolved_committed, "result=\"committed\""),
    IN_POOL(resolved_aborted, "result=\"aborted\""),
    IN_POOL(resolved_not, "result=\"unresolved\""),
    END,
};

#define COUNTER(name, field, help)                                                                           \
    {                                                                                                        \
        name, NULL, help, WR_COUNTER, WR_OF_POOL_U64, 0, OF_POOL(field)                                      \
    }
#define REASONS(name, field, help)                                                                           \
    {                                                                                                        \
        name, NULL, help, WR_COUNTER, WR_OF_POOL_REASONS, 0, OF_POOL(field)                                  \
    }
#define COUNTERS(name, list, help)                                                                           \
    {                                                                                                        \
        name, NULL, help, WR_COUNTER, WR_OF_POOL_U64, 0, list                                                \
    }
#define GAUGE(name, source, field, help)                                                                     \
    {                                                                                                        \
        name, NULL, help, WR_GAUGE, source, 0, OF_POOL(field)                                                \
    }
#define SPREAD(name, field, help)                                                                            \
    {                                                                                                        \
        name, "seconds", help, WR_HISTOGRAM, WR_OF_POOL_HISTOGRAM, 0, OF_POOL(field)                         \
    }
#define BY_HAND(name, unit, type, hand, help)                                                                \
    {                                                                                                        \
        name, unit, help, type, WR_BY_HAND, hand, NULL                                                       \
    }

static const struct wr_family native[] = {
    SPREAD("weir_acquire_wait_seconds", wait, "Time that attempts waited until they had a connection."),
    BY_HAND("weir_area_created_timestamp_seconds", "seconds", WR_GAUGE, WR_AREA_CREATED,
            "When all counters stood at zero."),
    COUNTER("weir_attempts", attempts,
            "Attempts that the breaker let through; a call has one and its retries."),
    BY_HAND(
        "weir_backend_up", NULL, WR_GAUGE, WR_BACKEND_UP,
        "Whether the backend answers, as the worker that heard of it last knows it; absent until one has."),
    BY_HAND("weir_breaker_failure_ratio", NULL, WR_GAUGE, WR_BREAKER_RATIO,
            "Failures among the calls in the breaker's window; absent below its least number of calls."),
    BY_HAND("weir_breaker_open_until_timestamp_seconds", "seconds", WR_GAUGE, WR_BREAKER_OPEN_UNTIL,
            "When an open breaker lets calls through again at the latest; absent while it is not open."),
    BY_HAND("weir_breaker_state", NULL, WR_STATESET, WR_BREAKER_STATE,
            "1 for the state that the breaker is in, 0 for the others."),
    COUNTERS("weir_breaker_transitions", transitions, "Moves of the breaker, by the state they led to."),
    BY_HAND("weir_build", NULL, WR_INFO, WR_BUILD_INFO, "Version of the library, name of the engine."),
    {"weir_call_duration_seconds", "seconds", "Whole calls, with waiting and retries, however they ended.",
     WR_HISTOGRAM, WR_OF_SERIES_HISTOGRAM, 0, call_duration},
    {"weir_calls", NULL, "Calls that have ended.", WR_COUNTER, WR_OF_SERIES_U64, 0, calls},
    COUNTER("weir_calls_abandoned", abandoned, "Calls that were running when their worker died."),
    GAUGE("weir_calls_in_flight", WR_OF_POOL_I64, in_flight, "Calls that have started and not ended."),
    COUNTER("weir_calls_started", started, "Calls taken in."),
    COUNTER("weir_cancels", cancels, "Requests to the server to give up a statement."),
    BY_HAND("weir_check_up", NULL, WR_GAUGE, WR_CHECK_UP,
            "Whether a health check of the program's own is well; absent until it has answered."),
    SPREAD("weir_connect_duration_seconds", connect, "Connects that went well."),
    REASONS("weir_connect_failures", connects_failed,
            "Connects that failed, by what the server said; connect: it did not say anything."),
    {"weir_connections", NULL, "Connections over all workers, by what they do.", WR_GAUGE, WR_OF_POOL_I64, 0,
     connections},
    COUNTERS("weir_connections_closed", closed, "Connections closed, and why."),
    GAUGE("weir_connections_max", WR_OF_POOL_U32, max,
          "Connections that the pool may have over all workers."),
    GAUGE("weir_connections_min", WR_OF_POOL_U32, min, "Connections that the pool keeps."),
    COUNTER("weir_connections_opened", opened, "Connections opened."),
    REASONS("weir_errors", attempts_failed,
            "Attempts that failed, by what the failure was; what a guard refused is not among them."),
    BY_HAND("weir_health", NULL, WR_STATESET, WR_HEALTH,
            "1 for the word that /health says."),
    SPREAD("weir_hold_duration_seconds", hold,
           "Time that attempts had a connection, until they gave it back."),
    BY_HAND("weir_labels", NULL, WR_GAUGE, WR_LABELS,
            "Labels in use; when all are taken, calls count as other."),
    BY_HAND("weir_labels_max", NULL, WR_GAUGE, WR_LABELS_MAX, "Labels that there can be."),
    COUNTER("weir_leaks", leaks, "Units of work that held a connection longer than leak_after."),
    COUNTER("weir_policy_calls", policy_calls, "Times that a policy function was asked."),
    COUNTER("weir_policy_faults", policy_faults,
            "Times that a policy function failed and the built-in one answered."),
    BY_HAND("weir_pool", NULL, WR_INFO, WR_POOL_INFO, "Client and backend of a pool."),
    GAUGE("weir_pool_paused", WR_OF_POOL_BOOL, paused, "1 while an operator has paused the pool."),
    COUNTER("weir_probe_failures", probes_failed, "Probes that failed."),
    COUNTER("weir_probes", probes, "Probes sent by the monitor."),
    COUNTERS("weir_rejected", rejected, "Refusals, by the guard that said no."),
    REASONS("weir_retries", retries_after, "Attempts beyond the first, by what the failure before was."),
    COUNTERS("weir_retries_denied", denied, "Retries that were not made, and why."),
    BY_HAND("weir_retry_budget_ratio", NULL, WR_GAUGE, WR_BUDGET_RATIO,
            "What is left of the retry budget, 0 to 1."),
    COUNTER("weir_session_resets", resets, "Connections whose session was reset before the next borrower."),
    COUNTER("weir_statement_heals", heals,
            "Prepared statements that the server had lost and that were made anew."),
    COUNTERS("weir_unknown_resolved", resolved, "Lost COMMITs, and what the server said of them afterwards."),
    GAUGE("weir_waiters", WR_OF_POOL_I64, waiting, "Calls that wait for a connection."),
    BY_HAND("weir_workers", NULL, WR_GAUGE, WR_WORKERS, "Workers whose heartbeat is not older than 5 s."),
};

const struct wr_family_set wr_native_set = {native, sizeof native / sizeof *native, "pool=\"", "\",label=\""};

/* OpenTelemetry's semantic conventions for database clients, 1.44, as Prometheus writes them. `_count` is not a name that
 * promtool likes for a gauge; it is what the conventions' rule gives. */
static const struct wr_sample otel_count[] = {
    IN_POOL(idle, "db_client_connection_state=\"idle\""),
    IN_POOL(busy, "db_client_connection_state=\"used\""),
    END,
};

static const struct wr_family otel[] = {
    {"db_client_connection_count", NULL, "Connections by what they do.", WR_GAUGE, WR_OF_POOL_I64, 0,
     otel_count},
    SPREAD("db_client_connection_create_time_seconds", connect, "Time that it took to make a connection."),
    GAUGE("db_client_connection_idle_max", WR_OF_POOL_U32, max, "Idle connections that there may be."),
    GAUGE("db_client_connection_idle_min", WR_OF_POOL_U32, min, "Idle connections that are kept."),
    GAUGE("db_client_connection_max", WR_OF_POOL_U32, max, "Connections that there may be."),
    GAUGE("db_client_connection_pending_requests", WR_OF_POOL_I64, waiting,
          "Calls that wait for a connection."),
    COUNTER("db_client_connection_timeouts", refused_acquire, "Calls that waited for a connection in vain."),
    SPREAD("db_client_connection_use_time_seconds", hold,
           "Time from getting a connection to giving it back."),
    SPREAD("db_client_connection_wait_time_seconds", wait, "Time that it took to get a connection."),
    {"db_client_operation_duration_seconds", "seconds",
     "Whole calls, with waiting and retries, however they ended.", WR_HISTOGRAM, WR_OF_SERIES_HISTOGRAM, 0,
     call_duration},
};

const struct wr_family_set wr_otel_set = {otel, sizeof otel / sizeof *otel,
                                          "db_system_name=\"postgresql\",db_client_connection_pool_name=\"",
                                          "\",db_query_summary=\""};
