/* The mapping SQLSTATE x severity x phase -> class. The longest matching prefix of the table wins. */
#include "engine/outcome.h"

#include "area/meter.h"

#include <assert.h>
#include <string.h>

struct rule {
    const char *prefix;
    weir_class class_; /* once the server has answered, i.e. the transaction is rolled back */
    weir_verdict verdict;
    const char *reason;
};

/* Sorted by nothing: the longest prefix decides, so "40001" beats "40". */
static const struct rule rules[] = {
    {"08", WEIR_CLASS_SAFE, WEIR_FAILURE, "connection"},
    {"08P01", WEIR_CLASS_PERMANENT, WEIR_FAILURE, "protocol"},
    {"0A", WEIR_CLASS_PERMANENT, WEIR_SUCCESS, "unsupported"},
    {"21", WEIR_CLASS_PERMANENT, WEIR_SUCCESS, "data"},
    {"22", WEIR_CLASS_PERMANENT, WEIR_SUCCESS, "data"},
    {"23", WEIR_CLASS_PERMANENT, WEIR_SUCCESS, "constraint"},
    {"25", WEIR_CLASS_PERMANENT, WEIR_SUCCESS, "transaction_state"},
    {"25P03", WEIR_CLASS_SAFE, WEIR_NEUTRAL, "idle_timeout"},
    {"25006", WEIR_CLASS_SAFE, WEIR_NEUTRAL, "read_only_node"},
    {"26000", WEIR_CLASS_SAFE, WEIR_SUCCESS, "statement_cache"},
    {"28", WEIR_CLASS_PERMANENT, WEIR_SUCCESS, "authorization"},
    {"3D", WEIR_CLASS_PERMANENT, WEIR_SUCCESS, "catalog"},
    {"40", WEIR_CLASS_SAFE, WEIR_NEUTRAL, "rollback"},
    {"40001", WEIR_CLASS_SAFE, WEIR_NEUTRAL, "serialization"},
    {"40002", WEIR_CLASS_PERMANENT, WEIR_SUCCESS, "constraint"},
    {"40003", WEIR_CLASS_UNKNOWN, WEIR_NEUTRAL, "completion_unknown"},
    {"40P01", WEIR_CLASS_SAFE, WEIR_NEUTRAL, "deadlock"},
    {"42", WEIR_CLASS_PERMANENT, WEIR_SUCCESS, "statement"},
    {"42501", WEIR_CLASS_PERMANENT, WEIR_SUCCESS, "privilege"},
    {"42P05", WEIR_CLASS_SAFE, WEIR_SUCCESS, "statement_cache"},
    {"53", WEIR_CLASS_SAFE, WEIR_FAILURE, "resources"},
    {"53100", WEIR_CLASS_PERMANENT, WEIR_FAILURE, "disk_full"},
    {"53300", WEIR_CLASS_SAFE, WEIR_FAILURE, "too_many_connections"},
    {"53400", WEIR_CLASS_PERMANENT, WEIR_FAILURE, "configuration_limit"},
    {"55006", WEIR_CLASS_SAFE, WEIR_NEUTRAL, "in_use"},
    {"55P03", WEIR_CLASS_SAFE, WEIR_NEUTRAL, "lock"},
    {"57014", WEIR_CLASS_SAFE, WEIR_NEUTRAL, "canceled"},
    {"57000", WEIR_CLASS_SAFE, WEIR_NEUTRAL, "canceled"},
    {"57P01", WEIR_CLASS_SAFE, WEIR_FAILURE, "shutdown"},
    {"57P02", WEIR_CLASS_SAFE, WEIR_FAILURE, "crash"},
    {"57P03", WEIR_CLASS_SAFE, WEIR_FAILURE, "not_ready"},
    {"57P04", WEIR_CLASS_PERMANENT, WEIR_FAILURE, "database_dropped"},
    {"57P05", WEIR_CLASS_SAFE, WEIR_NEUTRAL, "idle_timeout"},
    {"58", WEIR_CLASS_PERMANENT, WEIR_FAILURE, "system"},
    {"72000", WEIR_CLASS_SAFE, WEIR_NEUTRAL, "snapshot"},
    {"XX", WEIR_CLASS_PERMANENT, WEIR_SUCCESS, "internal"},
};

static const char *const reasons[] = {"authorization",
                                      "canceled",
                                      "catalog",
                                      "completion_unknown",
                                      "configuration_limit",
                                      "connect",
                                      "connection",
                                      "constraint",
                                      "crash",
                                      "data",
                                      "database_dropped",
                                      "deadlock",
                                      "disk_full",
                                      "identity",
                                      "idle_timeout",
                                      "in_use",
                                      "internal",
                                      "lock",
                                      "not_ready",
                                      "other",
                                      "privilege",
                                      "protocol",
                                      "read_only_node",
                                      "resources",
                                      "rollback",
                                      "serialization",
                                      "shutdown",
                                      "snapshot",
                                      "statement",
                                      "statement_cache",
                                      "system",
                                      "timeout",
                                      "too_many_connections",
                                      "transaction_state",
                                      "unsupported"};

static_assert(sizeof reasons / sizeof *reasons == WR_REASONS, "the meters have a place for each");

const char *wr_outcome_reason_name(size_t number)
{
    return number < WR_REASONS ? reasons[number] : "?";
}

uint8_t wr_outcome_reason(const char *word)
{
    uint8_t other = 0;
    for (uint8_t i = 0; i < WR_REASONS; i++) {
        if (strcmp(reasons[i], word) == 0) return i;
        if (strcmp(reasons[i], "other") == 0) other = i;
    }
    return other;
}

static const struct rule *find_rule(const char *sqlstate)
{
    const struct rule *best = NULL;
    size_t best_length = 0;
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        size_t length = strlen(rules[i].prefix);
        if (length > best_length && strncmp(rules[i].prefix, sqlstate, length) == 0) {
            best = &rules[i];
            best_length = length;
        }
    }
    return best;
}

/* A failed connect ran nothing, so it is safe unless the same credentials will fail the same way. */
static struct wr_judgement judge_connect(const struct wr_fault *fault)
{
    struct wr_judgement j = {.code = WEIR_CALL_CONNECT,
                             .class_ = WEIR_CLASS_SAFE,
                             .outcome = WEIR_OUTCOME_NONE,
                             .verdict = WEIR_FAILURE,
                             .reason = "connect"};
    const struct rule *rule = find_rule(fault->sqlstate);
    if (rule != NULL) j.reason = rule->reason;
    if (rule != NULL && rule->class_ == WEIR_CLASS_PERMANENT) j.class_ = WEIR_CLASS_PERMANENT;
    if (fault->ours) {
        j.verdict = WEIR_NEUTRAL;
        j.reason = "resources";
    }
    if (fault->identity) {
        j.code = WEIR_CALL_IDENTITY;
        j.class_ = WEIR_CLASS_PERMANENT;
        j.verdict = WEIR_NEUTRAL; /* the server is well; the configuration is not */
        j.reason = "identity";
    }
    return j;
}

/* The connection died. Before COMMIT (or before anything) was sent the server rolls back; after it, nobody here knows. */
static struct wr_judgement judge_lost(const struct wr_fault *fault, const struct wr_circumstances *at)
{
    struct wr_judgement j = {.code = WEIR_CALL_LOST,
                             .class_ = WEIR_CLASS_SAFE,
                             .outcome = WEIR_OUTCOME_ROLLED_BACK,
                             .verdict = WEIR_FAILURE,
                             .reason = "connection"};
    const struct rule *rule = find_rule(fault->sqlstate);
    if (rule != NULL) {
        j.reason = rule->reason;
        j.verdict = rule->verdict == WEIR_NEUTRAL ? WEIR_NEUTRAL : WEIR_FAILURE;
    }
    bool may_have_committed =
        at->phase == WEIR_PHASE_COMMIT_SENT || (at->phase == WEIR_PHASE_SENT && !at->in_unit);
    if (at->phase == WEIR_PHASE_NOT_SENT) j.outcome = WEIR_OUTCOME_NONE;
    if (may_have_committed && !at->no_effect) {
        j.class_ = WEIR_CLASS_UNKNOWN;
        j.outcome = WEIR_OUTCOME_UNKNOWN;
    }
    return j;
}

/* The server answered with an ERROR on a connection that lives on: the transaction is rolled back. */
static struct wr_judgement judge_answer(const struct wr_fault *fault, const struct wr_circumstances *at)
{
    struct wr_judgement j = {.code = WEIR_CALL_SERVER,
                             .class_ = WEIR_CLASS_PERMANENT,
                             .outcome = WEIR_OUTCOME_ROLLED_BACK,
                             .verdict = WEIR_SUCCESS,
                             .reason = "other"};
    const struct rule *rule = find_rule(fault->sqlstate);
    if (rule == NULL) return j;
    j.class_ = rule->class_;
    j.verdict = rule->verdict;
    j.reason = rule->reason;
    /* A function may RAISE any code; a live connection shows that the server is not going down. */
    bool says_gone = strncmp(fault->sqlstate, "08", 2) == 0 || strncmp(fault->sqlstate, "57P", 3) == 0 ||
                     strcmp(fault->sqlstate, "53300") == 0;
    if (says_gone) {
        j.class_ = WEIR_CLASS_PERMANENT;
        j.verdict = WEIR_SUCCESS;
    }
    bool before_commit = at->in_unit && at->phase != WEIR_PHASE_COMMIT_SENT && at->phase != WEIR_PHASE_DONE;
    if (j.class_ == WEIR_CLASS_UNKNOWN) { /* 40003: whatever it says, nothing is committed before COMMIT */
        bool harmless = at->no_effect || before_commit;
        j.outcome = harmless ? WEIR_OUTCOME_ROLLED_BACK : WEIR_OUTCOME_UNKNOWN;
        if (harmless) j.class_ = WEIR_CLASS_SAFE;
    }
    j.wrong_node = strcmp(fault->sqlstate, "25006") == 0 && !at->no_effect;
    if (strcmp(fault->sqlstate, "25006") == 0 && at->no_effect) {
        j.class_ = WEIR_CLASS_PERMANENT; /* the caller declared it read-only and it was not */
        j.verdict = WEIR_SUCCESS;
    }
    /* "cached plan must not change result type": everything was rolled back and a new plan will do. */
    if (strcmp(fault->sqlstate, "0A000") == 0 && strstr(fault->message, "cached plan") != NULL) {
        j.class_ = WEIR_CLASS_SAFE;
        j.reason = "statement_cache";
    }
    return j;
}

struct wr_judgement wr_outcome_judge(const struct wr_fault *fault, const struct wr_circumstances *at)
{
    if (at->connecting) return judge_connect(fault);
    /* An ERROR that arrived before the connection went is a verdict: that transaction is gone. FATAL is none. */
    bool answered = strcmp(fault->severity, "ERROR") == 0;
    struct wr_judgement j = fault->lost && !answered ? judge_lost(fault, at) : judge_answer(fault, at);
    if (fault->lost && answered) j.verdict = WEIR_FAILURE;
    return j;
}
