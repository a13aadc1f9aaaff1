/* Statements: what their text says, which rule they fall under, and what they answer. Everything that needs the text is
 * decided when the segment is sent, since the caller may be gone before it is executed. */
#include "sim/simresult.h"
#include "sim/world.h"

#include "base/text.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct wr_sim_rule {
    struct wr_list node;
    char *text, *message;
    bool timed, fails;
    weir_dist service;
    double *bins; /* of its histogram */
    int writes;
    char sqlstate[6];
    struct wr_sim_rows *rows; /* NULL: the usual answer */
    void (*answer)(void *ctx, const struct weir_sim_asked *asked, struct weir_sim_answer *answer);
    void *ctx;
};

struct wr_sim_copy { /* of a statement that a rule will be asked about */
    char *sql, *claims, *role, *user;
    weir_statement statement;
    char **values;
};

/* ---- what the text says ------------------------------------------------------------------------------------------ */

static const char *skip_space(const char *sql)
{
    while (isspace((unsigned char)*sql)) sql++;
    return sql;
}

static bool begins(const char *sql, const char *word)
{
    size_t length = strlen(word);
    return strncasecmp(sql, word, length) == 0 && !isalnum((unsigned char)sql[length]) && sql[length] != '_';
}

static char verb_of(const char *sql)
{
    sql = skip_space(sql);
    switch (*sql | 32) {
    case 'i':
        return begins(sql, "insert") ? 'i' : '-';
    case 'u':
        return begins(sql, "update") ? 'u' : '-';
    case 'd':
        return begins(sql, "delete") ? 'd' : '-';
    case 'm':
        return begins(sql, "merge") ? 'u' : '-';
    case 'r':
        return begins(sql, "release") ? 'L' : begins(sql, "rollback") ? 'R' : '-';
    case 's':
        return begins(sql, "select") ? 's' : begins(sql, "savepoint") ? 'S' : '-';
    case 'w':
        if (!begins(sql, "with")) return '-';
        return strcasestr(sql, "insert") != NULL   ? 'i'
               : strcasestr(sql, "update") != NULL ? 'u'
               : strcasestr(sql, "delete") != NULL ? 'd'
                                                   : 's';
    case 'v':
    case 't':
        return begins(sql, "values") || begins(sql, "table") ? 's' : '-';
    default:
        return '-';
    }
}

/* Digits are the number itself; other text gets one of its own, above all that digits can give. */
uint64_t wr_sim_number_of(const char *text)
{
    if (text == NULL) return 0;
    uint64_t number = 0, hash = UINT64_C(1469598103934665603);
    size_t digits = 0;
    for (; text[digits] >= '0' && text[digits] <= '9' && digits < 18; digits++)
        number = number * 10 + (uint64_t)(text[digits] - '0');
    if (text[digits] == '\0' && number > 0) return number;
    for (; *text != '\0'; text++) hash = (hash ^ (unsigned char)*text) * UINT64_C(1099511628211);
    return hash | UINT64_C(1) << 63;
}

/* The last word of SAVEPOINT a, RELEASE SAVEPOINT a, ROLLBACK TO a. */
static uint64_t savepoint_of(const char *sql)
{
    const char *end = sql + strlen(sql);
    while (end > sql && (isspace((unsigned char)end[-1]) || end[-1] == ';')) end--;
    const char *word = end;
    while (word > sql && !isspace((unsigned char)word[-1])) word--;
    uint64_t hash = UINT64_C(1469598103934665603);
    for (; word < end; word++)
        hash = (hash ^ (uint64_t)tolower((unsigned char)*word)) * UINT64_C(1099511628211);
    return hash;
}

/* ---- reading a segment --------------------------------------------------------------------------------------------- */

static const struct wr_sim_rule *rule_for(weir_sim_server *server, const char *sql)
{
    for (struct wr_list *n = server->rules.next; n != &server->rules; n = n->next) {
        const struct wr_sim_rule *rule = WR_CONTAINER(n, struct wr_sim_rule, node);
        if (strcasestr(sql, rule->text) != NULL) return rule;
    }
    return NULL;
}

static void copy_free(struct wr_sim_copy *copy)
{
    if (copy == NULL) return;
    wr_sim_texts_free(copy->values, copy->statement.count);
    free(copy->sql);
    free(copy->claims);
    free(copy->role);
    free(copy->user);
    free(copy);
}

static char *text_or_null(const char *text)
{
    return text == NULL ? NULL : strdup(text);
}

static struct wr_sim_copy *copy_of(const weir_statement *statement, const struct wr_segment *segment,
                                   const struct wr_sim_job *job)
{
    struct wr_sim_copy *copy = calloc(1, sizeof *copy);
    if (copy == NULL) return NULL;
    const struct wr_sim_session *session = job->session;
    const char *claims = segment->claims, *role = segment->role;
    if (segment->kind == WR_SEGMENT_MORE && session != NULL) {
        claims = session->claims;
        role = session->role;
    }
    copy->sql = strdup(statement->sql);
    copy->claims = text_or_null(claims);
    copy->role = text_or_null(role);
    copy->user = strdup(job->link->user);
    copy->values = wr_sim_texts_copy(statement->values, statement->count);
    copy->statement = (weir_statement){.sql = copy->sql, .count = statement->count};
    copy->statement.values = (const char *const *)copy->values;
    if (copy->sql != NULL && copy->user != NULL && copy->values != NULL) return copy;
    copy_free(copy);
    return NULL;
}

bool wr_sim_errors_strike(weir_sim_server *server, const char *sql)
{
    const struct wr_sim_trouble *errors = &server->trouble[WEIR_SIM_ERRORS];
    if (!errors->active || (errors->fault.text != NULL && strcasestr(sql, errors->fault.text) == NULL))
        return false;
    return wr_sim_strikes(server, WEIR_SIM_ERRORS);
}

static int read_statement(struct wr_sim_job *job, const struct wr_segment *segment, size_t index)
{
    weir_sim_server *server = job->server;
    const weir_statement *statement = &segment->statements[index];
    struct wr_sim_op *op = &job->ops[index];
    *op = (struct wr_sim_op){.rule = rule_for(server, statement->sql), .verb = verb_of(statement->sql)};
    op->writes = op->verb == 'i' || op->verb == 'u' || op->verb == 'd';
    if (op->rule != NULL && op->rule->writes >= 0) op->writes = op->rule->writes > 0;
    if (op->verb == 'S' || op->verb == 'R' || op->verb == 'L') op->savepoint = savepoint_of(statement->sql);
    job->dirty = job->dirty || wr_segment_facts(segment, index).may_dirty;
    if (op->writes && statement->count > 0) op->number = wr_sim_number_of(statement->values[0]);
    if (wr_sim_errors_strike(server, statement->sql))
        memcpy(op->sqlstate, server->trouble[WEIR_SIM_ERRORS].sqlstate, sizeof op->sqlstate);
    if (op->rule != NULL && op->rule->answer != NULL) {
        op->copy = copy_of(statement, segment, job);
        if (op->copy == NULL) return WEIR_ENOMEM;
    }
    wr_ledger_hold(&server->sim->ledger, op->number);
    job->op_count++;
    return WEIR_OK;
}

int wr_sim_read_statements(struct wr_sim_job *job, const struct wr_segment *segment)
{
    size_t count = segment->count;
    if (count > job->op_room) {
        struct wr_sim_op *ops = calloc(count, sizeof *ops);
        struct weir_result *results = calloc(count, sizeof *results);
        if (ops == NULL || results == NULL) {
            free(ops);
            free(results);
            return WEIR_ENOMEM;
        }
        if (job->ops != job->few) free(job->ops);
        if (job->results != job->few_results) free(job->results);
        job->ops = ops;
        job->results = results;
        job->op_room = job->result_room = count;
    }
    for (size_t i = 0; i < count; i++) {
        if (read_statement(job, segment, i) != WEIR_OK) return WEIR_ENOMEM;
    }
    return WEIR_OK;
}

void wr_sim_ops_release(struct wr_sim_job *job)
{
    for (size_t i = 0; i < job->op_count; i++) {
        wr_ledger_let_go(&job->server->sim->ledger, job->ops[i].number);
        copy_free(job->ops[i].copy);
    }
    job->op_count = 0;
}

uint64_t wr_sim_op_service(weir_sim_server *server, const struct wr_sim_op *op)
{
    if (op->rule != NULL && op->rule->timed) return wr_dist_draw(&op->rule->service, &server->rng);
    if (strchr("SRL-", op->verb) != NULL) return 0;
    return wr_dist_draw(&server->options.service, &server->rng);
}

bool wr_sim_op_fails(const struct wr_sim_op *op)
{
    return op->sqlstate[0] != '\0' || (op->rule != NULL && op->rule->fails);
}

/* ---- answering ------------------------------------------------------------------------------------------------------- */

/* The rule's own rows; without any, what every statement of its kind is answered with. */
static struct weir_sim_answer usual_answer(const struct wr_sim_op *op)
{
    const struct wr_sim_rows *rows = op->rule->rows;
    static const char *const name[] = {"?column?"}, *const value[] = {"1"};
    static const uint32_t type[] = {23};
    if (rows == NULL && op->verb == 's')
        return (struct weir_sim_answer){
            .names = name, .types = type, .columns = 1, .rows = 1, .values = value, .affected = 1};
    if (rows == NULL) return (struct weir_sim_answer){.affected = op->writes ? 1 : 0};
    return (struct weir_sim_answer){.names = (const char *const *)rows->names,
                                    .types = rows->types,
                                    .columns = rows->columns,
                                    .rows = rows->rows,
                                    .values = (const char *const *)rows->values,
                                    .affected = rows->affected};
}

static bool ask(struct wr_sim_job *job, const struct wr_sim_op *op, struct weir_result *out)
{
    weir_sim_server *server = job->server;
    const struct wr_sim_copy *copy = op->copy;
    struct weir_sim_answer answer = usual_answer(op);
    struct weir_sim_asked asked = {.sql = copy->sql,
                                   .claims = copy->claims,
                                   .role = copy->role,
                                   .user = copy->user,
                                   .statement = &copy->statement,
                                   .at_ns = server->sim->now,
                                   .seen_until_ns = wr_sim_seen_until(server),
                                   .in_transaction = job->kind != WR_SEGMENT_SINGLE};
    server->asking++;
    op->rule->answer(op->rule->ctx, &asked, &answer);
    server->asking--;
    if (wr_timer_armed(&server->fall)) { /* by the rule's own hand: its statement does not survive it */
        wr_sim_fail(job, "57P02", "the server falls");
        job->reset_after = true;
        return false;
    }
    if (answer.sqlstate != NULL) {
        wr_sim_fail(job, answer.sqlstate, answer.message == NULL ? "refused by the rule" : answer.message);
        return false;
    }
    struct wr_sim_rows *rows = wr_sim_rows_new(&answer);
    if (rows == NULL) {
        wr_sim_fail(job, "53200", "out of memory");
        return false;
    }
    wr_sim_rows_show(rows, op->verb, out);
    wr_sim_rows_drop(rows);
    return true;
}

bool wr_sim_op_result(struct wr_sim_job *job, const struct wr_sim_op *op, struct weir_result *out)
{
    const struct wr_sim_rule *rule = op->rule;
    if (rule != NULL && rule->fails) {
        wr_sim_fail(job, rule->sqlstate, rule->message);
        return false;
    }
    if (rule != NULL && rule->answer != NULL) return ask(job, op, out);
    wr_sim_rows_show(rule != NULL && rule->rows != NULL ? rule->rows : wr_sim_rows_usual(op->verb), op->verb,
                     out);
    return true;
}

/* ---- making rules ---------------------------------------------------------------------------------------------------- */

static void rule_free(struct wr_sim_rule *rule)
{
    wr_list_remove(&rule->node);
    if (rule->rows != NULL) wr_sim_rows_drop(rule->rows);
    free(rule->bins);
    free(rule->text);
    free(rule->message);
    free(rule);
}

static int bad_rule(char *why, const char *what)
{
    if (why != NULL) wr_text_format(why, WEIR_WHY_MAX, "%s", what);
    return WEIR_EINVAL;
}

static int check_rule(const weir_sim_rule *rule, char *why)
{
    if (rule->text == NULL || rule->text[0] == '\0')
        return bad_rule(why, "text is empty; a rule needs a part of the statements it is for");
    if (rule->sqlstate != NULL && strlen(rule->sqlstate) != 5)
        return bad_rule(why, "sqlstate is not five characters long, like 40001");
    if (rule->columns > 1600 || rule->rows > 1000000)
        return bad_rule(why, "rows has more than 1 600 columns or 1 000 000 rows");
    return rule->timed ? weir_dist_check(&rule->service, "service", why) : WEIR_OK;
}

static bool fill_rule(struct wr_sim_rule *made, const weir_sim_rule *rule)
{
    made->text = strdup(rule->text);
    made->message = strdup(rule->message == NULL ? "made to fail by its rule" : rule->message);
    made->timed = rule->timed;
    made->service = rule->service;
    made->writes = rule->writes;
    made->answer = rule->answer;
    made->ctx = rule->ctx;
    made->fails = rule->sqlstate != NULL;
    if (made->fails) memcpy(made->sqlstate, rule->sqlstate, sizeof made->sqlstate);
    bool copied = !rule->timed || wr_sim_keep_bins(&made->service, &made->bins);
    if (rule->names != NULL) {
        struct weir_sim_answer answer = {NULL,          NULL,       rule->names,  rule->types,
                                         rule->columns, rule->rows, rule->values, rule->rows};
        made->rows = wr_sim_rows_new(&answer);
        copied = copied && made->rows != NULL;
    }
    return copied && made->text != NULL && made->message != NULL;
}

int weir_sim_rule_add(weir_sim_server *server, const weir_sim_rule *rule, char *why)
{
    int code = check_rule(rule, why);
    if (code != WEIR_OK) return code;
    struct wr_sim_rule *made = calloc(1, sizeof *made);
    if (made == NULL) return WEIR_ENOMEM;
    wr_list_init(&made->node);
    if (!fill_rule(made, rule)) {
        rule_free(made);
        return WEIR_ENOMEM;
    }
    wr_list_append(&server->rules, &made->node);
    return WEIR_OK;
}

/* Statements under way still point to theirs. */
void weir_sim_rules_clear(weir_sim_server *server)
{
    struct wr_list *node;
    while ((node = wr_list_first(&server->rules)) != NULL) {
        wr_list_remove(node);
        wr_list_append(&server->old_rules, node);
    }
}

void wr_sim_rules_free(weir_sim_server *server)
{
    struct wr_list *node;
    weir_sim_rules_clear(server);
    while ((node = wr_list_first(&server->old_rules)) != NULL)
        rule_free(WR_CONTAINER(node, struct wr_sim_rule, node));
}
