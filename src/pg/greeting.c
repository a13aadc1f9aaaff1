/* The first words on a new connection: who the server is, whether this login may be what the pool says it is,
 * and the settings the session starts with. Each question is a pipeline segment of its own, so that one the
 * login may not ask takes none of the others with it. */
#include "pg/handshake.h"

#include "base/text.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>

enum { QUESTIONS = 8 };

struct question {
    const char *sql;
    int count;
    const char *values[3];
    PGresult *answer; /* the first result; NULL if the connection went before */
};

struct greeter {
    struct wr_arrival *arrival;
    const struct wr_target *target;
    const struct wr_patience *patience;
    const struct wr_secrets *secrets;
};

/* ---- asking ---- */

static bool send_all(PGconn *conn, const struct question *questions, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct question *q = &questions[i];
        if (!PQsendQueryParams(conn, q->sql, q->count, NULL, q->values, NULL, NULL, 0)) return false;
        if (!PQpipelineSync(conn)) return false;
    }
    return true;
}

/* True once every question's Sync has been answered, or nothing more can come. */
static bool collect(PGconn *conn, struct question *questions, size_t count, size_t *at)
{
    while (*at < count && !PQisBusy(conn)) {
        PGresult *result = PQgetResult(conn);
        if (result == NULL && PQstatus(conn) == CONNECTION_BAD) return true;
        if (result != NULL && PQresultStatus(result) == PGRES_PIPELINE_SYNC) {
            ++*at;
        } else if (result != NULL && questions[*at].answer == NULL) {
            questions[*at].answer = result;
            continue;
        }
        PQclear(result);
    }
    return *at == count;
}

static bool ran_out(struct greeter *greeter, enum wr_wait wait)
{
    struct wr_fault *fault = &greeter->arrival->fault;
    bool timeout = wait == WR_WAIT_TIMEOUT;
    wr_pgfault_say(fault,
                   timeout ? "the server did not answer the greeting in time" : "the connect was called off");
    fault->unreachable = timeout;
    return false;
}

/* False, with the fault, if the answers did not come; a question refused by the server has its error as
 * answer. */
static bool ask(struct greeter *greeter, struct question *questions, size_t count)
{
    PGconn *conn = greeter->arrival->conn;
    size_t at = 0;
    bool ok = send_all(conn, questions, count);
    if (!ok) collect(conn, questions, count, &at); /* it hung up while we spoke, and may have said why */
    while (ok && !collect(conn, questions, count, &at)) {
        int left = PQflush(conn);
        enum wr_wait wait = wr_wait_for(conn, left == 1 ? POLLIN | POLLOUT : POLLIN, greeter->patience);
        if (wait != WR_WAIT_READY) return ran_out(greeter, wait);
        if (!PQconsumeInput(conn)) collect(conn, questions, count, &at); /* what came before the end counts */
        if (PQstatus(conn) == CONNECTION_BAD) break;
    }
    if (ok && at == count) return true;
    wr_pgfault_from_conn(&greeter->arrival->fault, conn, greeter->secrets);
    for (size_t i = 0; i < count; i++) {
        struct wr_fault fault;
        if (questions[i].answer == NULL) break; /* of which libpq says that it is an error, too */
        if (PQresultStatus(questions[i].answer) != PGRES_FATAL_ERROR) continue;
        wr_pgfault_from_result(&fault, questions[i].answer, greeter->secrets);
        if (!fault.lost) continue; /* a question the login may not ask is not why the connection went */
        greeter->arrival->fault = fault;
        break;
    }
    return false;
}

static void forget_answers(struct question *questions, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        PQclear(questions[i].answer);
        questions[i].answer = NULL;
    }
}

static bool has_row(const struct question *question)
{
    return PQresultStatus(question->answer) == PGRES_TUPLES_OK && PQntuples(question->answer) > 0;
}

static const char *value(const struct question *question, int column)
{
    bool there = has_row(question) && !PQgetisnull(question->answer, 0, column);
    return there ? PQgetvalue(question->answer, 0, column) : NULL;
}

static uint64_t number(const struct question *question, int column)
{
    const char *text = value(question, column);
    return text == NULL ? 0 : strtoull(text, NULL, 10);
}

/* ---- who the server is, and whether the login may be used ---- */

/* On a primary the name of the WAL file tells the timeline at once; the control file lags behind a
 * promotion. */
static const char system_sql[] = "select system_identifier from pg_catalog.pg_control_system()";
static const char timeline_sql[] =
    "select case when pg_catalog.pg_is_in_recovery() then (select timeline_id from "
    "pg_catalog.pg_control_checkpoint()) "
    "else ('x' || pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, "
    "8))::bit(32)::int "
    "end";
static const char life_sql[] = "select " WR_LIFE_SQL;
static const char state_sql[] =
    "select pg_catalog.pg_is_in_recovery(), session_user, pg_catalog.pg_backend_pid()";
static const char timeout_sql[] =
    "select (extract(epoch from pg_catalog.current_setting('statement_timeout')::interval) * 1000)::bigint";

/* The first reason that applies, or NULL. A role one is a member of counts like oneself: SET ROLE is open to
 * it, inside the very transaction that runs under the pool's role. CREATEROLE before 16 could make itself a
 * member of any. */
static const char identity_sql[] =
    "with held as (select r.* from pg_catalog.pg_roles r"
    " where pg_catalog.pg_has_role(session_user, r.oid, 'MEMBER'))"
    "select coalesce("
    "(select 'it is a superuser' from held where rolname = session_user and rolsuper),"
    "(select 'it has BYPASSRLS' from held where rolname = session_user and rolbypassrls),"
    "(select 'it is a member of ' || pg_catalog.quote_ident(rolname) || ', which '"
    "   || case when rolsuper then 'is a superuser' else 'has BYPASSRLS' end"
    "   from held where rolsuper or rolbypassrls order by rolname limit 1),"
    "(select case when rolname = session_user then 'it has CREATEROLE' else 'it is a member of '"
    "   || pg_catalog.quote_ident(rolname) || ', which has CREATEROLE' end || ', and could grant itself any "
    "role'"
    "   from held where rolcreaterole and pg_catalog.current_setting('server_version_num')::int < 160000"
    "   order by rolname limit 1),"
    "(select 'role ' || pg_catalog.quote_ident($1::text) || ' does not exist'"
    "   where not exists (select from pg_catalog.pg_roles where rolname = $1::text)),"
    "(select 'it is not a member of role ' || pg_catalog.quote_ident($1::text)"
    "   where not exists (select from held where rolname = $1::text)),"
    "(select case when held.rolname = session_user then 'it' else 'its role ' || "
    "pg_catalog.quote_ident(held.rolname) end"
    "   || ' owns ' || c.oid::pg_catalog.regclass::text || ', whose row-level security is enabled but not "
    "forced'"
    "   from pg_catalog.pg_class c join held on held.oid = c.relowner"
    "   where c.relrowsecurity and not c.relforcerowsecurity order by c.oid limit 1))";

/* What ALTER ROLE ... SET gave the role. SET ROLE does not load it, so the session has to. */
static const char settings_sql[] =
    "select pg_catalog.split_part(c, '=', 1), pg_catalog.substr(c, pg_catalog.strpos(c, '=') + 1)"
    " from pg_catalog.pg_db_role_setting s, pg_catalog.unnest(s.setconfig) c"
    " where s.setrole = (select oid from pg_catalog.pg_roles where rolname = $1::text) and s.setdatabase in"
    " (0, (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database()))"
    " order by s.setdatabase";

static bool is_on(const PGconn *conn, const char *parameter)
{
    const char *text = PQparameterStatus(conn, parameter);
    return text != NULL && strcmp(text, "on") == 0;
}

static bool check_server(struct greeter *greeter)
{
    const PGconn *conn = greeter->arrival->conn;
    const char *encoding = PQparameterStatus(conn, "client_encoding");
    struct wr_fault *fault = &greeter->arrival->fault;
    if (!is_on(conn, "standard_conforming_strings")) {
        wr_pgfault_say(fault, "standard_conforming_strings is off: the server reads SQL differently from us");
        return false;
    }
    if (!is_on(conn, "integer_datetimes")) {
        wr_pgfault_say(fault, "integer_datetimes is off: the server is too old or built differently");
        return false;
    }
    if (encoding == NULL || strcmp(encoding, "UTF8") != 0) {
        wr_pgfault_say(fault, "client_encoding is not UTF8");
        return false;
    }
    return true;
}

/* Fails closed: a check that could not be made is a refusal too. */
static bool check_identity(struct greeter *greeter, const struct question *identity, const char *login)
{
    struct wr_fault *fault = &greeter->arrival->fault;
    const struct wr_target *target = greeter->target;
    if (!has_row(identity)) {
        wr_pgfault_from_result(fault, identity->answer, greeter->secrets);
    } else if (value(identity, 0) != NULL) {
        wr_pgfault_say(fault, "pool %s: login %s may not be used for ANON: %s", target->pool,
                       login == NULL ? "?" : login, value(identity, 0));
        fault->identity = true;
    } else {
        return true;
    }
    return false;
}

/* ---- settings ---- */

/* What the driver itself rests on is not the role's to change. */
static bool is_reserved(const char *name)
{
    static const char *const reserved[] = {"role", "session_authorization", "client_encoding",
                                           "standard_conforming_strings"};
    for (size_t i = 0; i < sizeof reserved / sizeof *reserved; i++) {
        if (strcasecmp(name, reserved[i]) == 0) return true;
    }
    return false;
}

static bool keep_setting(struct wr_settings *settings, const char *name, const char *text)
{
    size_t name_size = strlen(name) + 1, text_size = strlen(text) + 1;
    char *wider = realloc(settings->text, settings->length + name_size + text_size);
    if (wider == NULL) return false;
    settings->text = wider;
    memcpy(wider + settings->length, name, name_size);
    memcpy(wider + settings->length + name_size, text, text_size);
    settings->length += name_size + text_size;
    settings->count++;
    return true;
}

/* Tries one; what this login may not set is left out, as PostgreSQL itself does with a warning at login.
 * Behind a pooler a session setting would become some stranger's, so there it is tried for one transaction
 * only. */
static bool try_setting(struct greeter *greeter, const char *name, const char *text)
{
    struct question q = {.sql = "select pg_catalog.set_config($1, $2, $3)",
                         .count = 3,
                         .values = {name, text, greeter->arrival->pooler ? "true" : "false"}};
    bool ok = ask(greeter, &q, 1);
    if (ok && has_row(&q) && !keep_setting(&greeter->arrival->settings, name, text)) {
        wr_pgfault_say(&greeter->arrival->fault, "out of memory");
        ok = false;
    }
    forget_answers(&q, 1);
    return ok;
}

static bool apply_settings(struct greeter *greeter, const struct question *settings)
{
    int rows = has_row(settings) ? PQntuples(settings->answer) : 0;
    for (int i = 0; i < rows && i < WR_SETTINGS_MAX; i++) {
        const char *name = PQgetvalue(settings->answer, i, 0);
        if (is_reserved(name)) continue;
        if (!try_setting(greeter, name, PQgetvalue(settings->answer, i, 1))) return false;
    }
    return true;
}

/* ---- the greeting ---- */

enum { ASK_SYSTEM, ASK_TIMELINE, ASK_LIFE, ASK_STATE, ASK_TIMEOUT, ASK_IDENTITY, ASK_SETTINGS };

/* The process that answers is another than the one we were introduced to: a pooler introduces itself, and then
 * hands its clients to now this server process, now that. A name or a setting left with one of them would be
 * some stranger's, so it is treated as a pooler even if nobody said so. */
static bool is_somebody_elses(const PGconn *conn, const struct question *state)
{
    return (int)number(state, 2) != PQbackendPID(conn);
}

static bool understand(struct greeter *greeter, const struct question *questions, bool anon)
{
    struct wr_arrival *arrival = greeter->arrival;
    const struct question *state = &questions[ASK_STATE];
    if (!has_row(state)) {
        wr_pgfault_from_result(&arrival->fault, state->answer, greeter->secrets);
        return false;
    }
    arrival->greeting.system_id = number(&questions[ASK_SYSTEM], 0);
    arrival->greeting.timeline = (uint32_t)number(&questions[ASK_TIMELINE], 0);
    arrival->greeting.life = number(&questions[ASK_LIFE], 0);
    if (arrival->greeting.life == 0)
        arrival->greeting.life = UINT64_MAX - (uint64_t)PQbackendPID(arrival->conn);
    arrival->greeting.in_recovery = strcmp(value(state, 0), "t") == 0;
    arrival->greeting.server_version = (uint32_t)PQserverVersion(arrival->conn);
    arrival->greeting.backend_pid = (uint32_t)PQbackendPID(arrival->conn);
    arrival->timeout_cap_ms = number(&questions[ASK_TIMEOUT], 0);
    arrival->pooler = greeter->target->pooler || is_somebody_elses(arrival->conn, state);
    if (!anon) return true;
    return check_identity(greeter, &questions[ASK_IDENTITY], value(state, 1)) &&
           apply_settings(greeter, &questions[ASK_SETTINGS]);
}

/* The role's own statement_timeout may just have been loaded. */
static bool ask_timeout_again(struct greeter *greeter)
{
    struct question q = {.sql = timeout_sql};
    bool ok = ask(greeter, &q, 1);
    if (ok) greeter->arrival->timeout_cap_ms = number(&q, 0);
    forget_answers(&q, 1);
    return ok;
}

/* A SERVICE job that row-level security would filter shall hear of it (42501), not miss rows in silence. */
static bool settle_session(struct greeter *greeter, bool anon)
{
    if (!anon) return try_setting(greeter, "row_security", "off");
    return greeter->arrival->settings.count == 0 || greeter->arrival->pooler || ask_timeout_again(greeter);
}

bool wr_greet(struct wr_arrival *arrival, const struct wr_target *target, const struct wr_patience *patience,
              const struct wr_secrets *secrets)
{
    struct greeter greeter = {.arrival = arrival, .target = target, .patience = patience, .secrets = secrets};
    bool anon = target->kind == WEIR_ANON;
    struct question questions[QUESTIONS] = {
        [ASK_SYSTEM] = {.sql = system_sql},
        [ASK_TIMELINE] = {.sql = timeline_sql},
        [ASK_LIFE] = {.sql = life_sql},
        [ASK_STATE] = {.sql = state_sql},
        [ASK_TIMEOUT] = {.sql = timeout_sql},
        [ASK_IDENTITY] = {.sql = identity_sql, .count = 1, .values = {target->role}},
        [ASK_SETTINGS] = {.sql = settings_sql, .count = 1, .values = {target->role}},
    };
    size_t count = anon ? ASK_SETTINGS + 1 : ASK_TIMEOUT + 1;
    bool ok = check_server(&greeter) && ask(&greeter, questions, count) &&
              understand(&greeter, questions, anon) && settle_session(&greeter, anon);
    forget_answers(questions, count);
    return ok;
}
