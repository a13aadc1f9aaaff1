/* The servers of a simulation: options, rules, faults, figures. */
#include "lua_sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))

static int answer(lua_State *L, int code, const char *why)
{
    if (code == WEIR_ENOMEM) return luaL_error(L, "not enough memory");
    if (code != WEIR_OK) return wl_refuse(L, why);
    lua_pushboolean(L, 1);
    return 1;
}

/* The server named at 2; NULL, with nil and a sentence pushed, if that can be no name. */
static weir_sim_server *check_server(lua_State *L, struct wl_sim *sim)
{
    const char *name = luaL_checkstring(L, 2);
    weir_sim_server *server = weir_sim_server_named(sim->handle, name);
    if (server == NULL) {
        lua_pushnil(L);
        lua_pushfstring(L, "a server cannot be named '%s'; a name is 1 to 31 letters, digits, - and _", name);
    }
    return server;
}

/* ---- options ------------------------------------------------------------------------------------------- */

struct options { /* what of weir_sim_options is read by the table */
    uint32_t workers, connections;
    int queue;
    bool ignores_cancel;
    const char *follows;
};

static const char *const queue_names[] = {"fifo", "shared", NULL};

#define AT(field) offsetof(struct options, field)
static const struct wl_field option_fields[] = {
    {"workers", WL_WHOLE, AT(workers), 1, 100000, NULL},
    {"connections", WL_WHOLE, AT(connections), 1, 1000000, NULL},
    {"queue", WL_CHOICE, AT(queue), 0, 0, queue_names},
    {"ignores_cancel", WL_BOOL, AT(ignores_cancel), 0, 0, NULL},
    {"follows", WL_STRING, AT(follows), 0, 0, NULL},
    {"service", WL_NESTED, 0, 0, 0, NULL},
    {"commit", WL_NESTED, 0, 0, 0, NULL},
    {"connect", WL_NESTED, 0, 0, 0, NULL},
    {"network", WL_NESTED, 0, 0, 0, NULL},
    {"lag", WL_NESTED, 0, 0, 0, NULL},
};
#undef AT

static bool read_options(struct wl_reader *reader, struct wl_sim *sim, weir_sim_options *into)
{
    struct options read = {.workers = into->workers,
                           .connections = into->connections_max,
                           .queue = (int)into->queue,
                           .ignores_cancel = into->ignores_cancel,
                           .follows = into->follows};
    bool good = wl_read_fields(reader, 3, option_fields, COUNT(option_fields), &read) &&
                wl_dist_read(reader, 3, "service", &into->service, &sim->bins) &&
                wl_dist_read(reader, 3, "commit", &into->commit, &sim->bins) &&
                wl_dist_read(reader, 3, "connect", &into->connect, &sim->bins) &&
                wl_dist_read(reader, 3, "network", &into->network, &sim->bins) &&
                wl_dist_read(reader, 3, "lag", &into->lag, &sim->bins);
    into->workers = read.workers;
    into->connections_max = read.connections;
    into->queue = (weir_sim_queue)read.queue;
    into->ignores_cancel = read.ignores_cancel;
    into->follows = read.follows;
    return good;
}

int wl_sim_set(lua_State *L)
{
    char why[WEIR_WHY_MAX] = "";
    struct wl_sim *sim = wl_sim_steered(L);
    struct wl_reader reader = {.L = L};
    weir_sim_options options;
    weir_sim_server *server = check_server(L, sim);
    if (server == NULL) return 2;
    luaL_checktype(L, 3, LUA_TTABLE);
    weir_sim_server_get(server, &options);
    if (!read_options(&reader, sim, &options)) return wl_refuse(L, reader.why);
    return answer(L, weir_sim_server_set(server, &options, why), why);
}

/* ---- rules that are functions -------------------------------------------------------------------------- */

enum { FIRST_ASK_SLOT = 5 }; /* of the anchor table */

struct wl_sim_ask {
    struct wl_sim_ask *next;
    struct wl_sim *sim;
    int slot;            /* of its function in the anchor table */
    struct wl_rows rows; /* of the last answer */
    char sqlstate[6], message[256];
};

void wl_sim_asks_free(struct wl_sim *sim)
{
    while (sim->asks != NULL) {
        struct wl_sim_ask *ask = sim->asks;
        sim->asks = ask->next;
        wl_rows_free(&ask->rows);
        free(ask);
    }
}

static void set_text(lua_State *L, const char *name, const char *value)
{
    if (value != NULL)
        lua_pushstring(L, value);
    else
        lua_pushnil(L);
    lua_setfield(L, -2, name);
}

static void push_asked(lua_State *L, const struct weir_sim_asked *asked)
{
    lua_createtable(L, 0, 8);
    set_text(L, "sql", asked->sql);
    set_text(L, "claims", asked->claims);
    set_text(L, "role", asked->role);
    set_text(L, "user", asked->user);
    lua_pushnumber(L, (lua_Number)(asked->at_ns - WEIR_SIM_START) / 1e9);
    lua_setfield(L, -2, "now");
    lua_pushnumber(L, ((lua_Number)asked->seen_until_ns - (lua_Number)WEIR_SIM_START) / 1e9);
    lua_setfield(L, -2, "seen_until");
    lua_pushboolean(L, asked->in_transaction);
    lua_setfield(L, -2, "in_transaction");
    lua_createtable(L, (int)asked->statement->count, 1);
    for (size_t i = 0; i < asked->statement->count; i++) {
        if (asked->statement->values[i] == NULL) continue;
        lua_pushstring(L, asked->statement->values[i]);
        lua_rawseti(L, -2, (int)i + 1);
    }
    lua_pushinteger(L, (lua_Integer)asked->statement->count);
    lua_setfield(L, -2, "n");
    lua_setfield(L, -2, "params");
}

static void fail(struct wl_sim_ask *ask, struct weir_sim_answer *out, const char *sqlstate,
                 const char *message)
{
    (void)snprintf(ask->sqlstate, sizeof ask->sqlstate, "%s", sqlstate);
    (void)snprintf(ask->message, sizeof ask->message, "%s", message);
    out->sqlstate = ask->sqlstate;
    out->message = ask->message;
}

/* The three values that the function returned are on top: rows | affected | nil | nil, sqlstate, message. */
static void take_answer(lua_State *L, struct wl_sim_ask *ask, struct weir_sim_answer *out)
{
    int first = lua_gettop(L) - 2;
    const char *wrong = NULL;
    if (lua_type(L, first) == LUA_TNUMBER) {
        double affected = lua_tonumber(L, first);
        *out =
            (struct weir_sim_answer){.affected = affected >= 0 && affected < 9e15 ? (uint64_t)affected : 0};
    } else if (lua_type(L, first) == LUA_TTABLE) {
        wrong =
            wl_rows_read(L, first, lua_type(L, first + 1) == LUA_TTABLE ? first + 1 : first + 2, &ask->rows);
        out->names = (const char *const *)ask->rows.names;
        out->values = (const char *const *)ask->rows.values;
        out->types = ask->rows.types;
        out->columns = ask->rows.columns;
        out->rows = ask->rows.rows;
        out->affected = ask->rows.rows;
    } else if (lua_isnil(L, first) && lua_isnil(L, first + 1)) {
        return; /* nothing in particular: the usual answer */
    } else if (lua_type(L, first + 1) == LUA_TSTRING && lua_rawlen(L, first + 1) == 5) {
        const char *message = lua_tostring(L, first + 2);
        fail(ask, out, lua_tostring(L, first + 1), message != NULL ? message : "refused by its rule");
    } else {
        wrong = "a rule must return rows, a number of affected rows, nothing, or nil and a SQLSTATE of five "
                "characters";
    }
    if (wrong == NULL) return;
    fail(ask, out, "XX000", wrong);
    lua_pushstring(L, wrong);
    wl_sim_keep_failure(ask->sim, L);
}

static void on_ask(void *ctx, const struct weir_sim_asked *asked, struct weir_sim_answer *out)
{
    struct wl_sim_ask *ask = ctx;
    struct wl_sim *sim = ask->sim;
    lua_State *L = sim->L;
    wl_rows_free(&ask->rows);
    if (L == NULL || !lua_checkstack(L, 16)) {
        fail(ask, out, "57P01", "the simulation is closed");
        return;
    }
    lua_settop(L, 1);
    lua_rawgeti(L, 1, ask->slot);
    push_asked(L, asked);
    if (lua_pcall(L, 1, 3, 0) == LUA_OK) {
        take_answer(L, ask, out);
    } else {
        fail(ask, out, "XX000",
             lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "its rule raised an error");
        wl_sim_keep_failure(sim, L);
    }
    lua_settop(L, 1);
}

static struct wl_sim_ask *ask_new(lua_State *L, struct wl_sim *sim, int function)
{
    struct wl_sim_ask *ask = calloc(1, sizeof *ask);
    if (ask == NULL) {
        luaL_error(L, "not enough memory");
        return NULL;
    }
    ask->sim = sim;
    ask->slot = FIRST_ASK_SLOT + sim->ask_count++;
    ask->next = sim->asks;
    sim->asks = ask;
    wl_get_anchor(L, 1);
    lua_pushvalue(L, function);
    lua_rawseti(L, -2, ask->slot);
    lua_pop(L, 1);
    return ask;
}

/* ---- rules ----------------------------------------------------------------------------------------------- */

struct rule {
    const char *text, *error, *message;
    bool writes;
};

static const struct wl_field rule_fields[] = {
    {"text", WL_STRING, offsetof(struct rule, text), 0, 0, NULL},
    {"error", WL_STRING, offsetof(struct rule, error), 0, 0, NULL},
    {"message", WL_STRING, offsetof(struct rule, message), 0, 0, NULL},
    {"writes", WL_BOOL, offsetof(struct rule, writes), 0, 0, NULL},
    {"service", WL_NESTED, 0, 0, 0, NULL},
    {"rows", WL_NESTED, 0, 0, 0, NULL},
    {"columns", WL_NESTED, 0, 0, 0, NULL},
    {"answer", WL_NESTED, 0, 0, 0, NULL},
};

static int push_field(lua_State *L, const char *name)
{
    lua_pushstring(L, name);
    lua_rawget(L, 3);
    return lua_gettop(L);
}

/* The rows, columns and function of the rule at 3, which are pushed and stay on the stack. NULL, or what is wrong. */
static const char *read_answers(lua_State *L, struct wl_sim *sim, weir_sim_rule *rule, struct wl_rows *rows)
{
    int list = push_field(L, "rows"), names = push_field(L, "columns"), function = push_field(L, "answer");
    if (!lua_isnil(L, function) && lua_type(L, function) != LUA_TFUNCTION) return "answer must be a function";
    if (!lua_isnil(L, list) && lua_type(L, list) != LUA_TTABLE) return "rows must be a list of rows";
    if (lua_type(L, function) == LUA_TFUNCTION) {
        rule->answer = on_ask;
        rule->ctx = ask_new(L, sim, function);
    }
    if (lua_isnil(L, list)) return NULL;
    const char *wrong = wl_rows_read(L, list, names, rows);
    static const char *const none[] = {""};
    rule->names = rows->names != NULL ? (const char *const *)rows->names : none;
    rule->values = rows->values != NULL ? (const char *const *)rows->values : none;
    rule->types = rows->types;
    rule->columns = rows->columns;
    rule->rows = rows->rows;
    return wrong;
}

int wl_sim_rule(lua_State *L)
{
    char why[WEIR_WHY_MAX] = "";
    struct wl_sim *sim = wl_sim_steered(L);
    struct wl_reader reader = {.L = L};
    struct rule read = {NULL, NULL, NULL, false};
    struct wl_rows rows = {0};
    weir_sim_rule rule = {.writes = -1};
    weir_sim_server *server = check_server(L, sim);
    if (server == NULL) return 2;
    luaL_checktype(L, 3, LUA_TTABLE);
    bool good = wl_read_fields(&reader, 3, rule_fields, COUNT(rule_fields), &read) &&
                wl_dist_read(&reader, 3, "service", &rule.service, &sim->bins);
    if (!good) return wl_refuse(L, reader.why);
    rule.timed = !lua_isnil(L, push_field(L, "service"));
    if (!lua_isnil(L, push_field(L, "writes"))) rule.writes = read.writes ? 1 : 0;
    rule.text = read.text;
    rule.sqlstate = read.error;
    rule.message = read.message;
    const char *wrong = read_answers(L, sim, &rule, &rows);
    int code = wrong == NULL ? weir_sim_rule_add(server, &rule, why) : WEIR_EINVAL;
    wl_rows_free(&rows);
    return answer(L, code, wrong != NULL ? wrong : why);
}

/* ---- faults ------------------------------------------------------------------------------------------------ */

static const char *const phase_names[] = {"before_send", "after_send",   "before_answer",
                                          "at_commit",   "after_commit", NULL};

struct fault {
    weir_sim_fault fault;
    int phase;
};

#define AT(field) offsetof(struct fault, fault.field)
static const struct wl_field fault_fields[] = {
    {"lasts", WL_SECONDS, AT(lasts_ns), 0, 0, NULL},
    {"after", WL_SECONDS, AT(after_ns), 0, 0, NULL},
    {"recovery", WL_SECONDS, AT(recovery_ns), 0, 0, NULL},
    {"factor", WL_NUMBER, AT(factor), 0, 1e6, NULL},
    {"rate", WL_NUMBER, AT(rate), 0, 1, NULL},
    {"seconds", WL_NUMBER, AT(seconds), 0, 3600, NULL},
    {"sqlstate", WL_STRING, AT(sqlstate), 0, 0, NULL},
    {"text", WL_STRING, AT(text), 0, 0, NULL},
    {"to", WL_STRING, AT(to), 0, 0, NULL},
    {"phase", WL_CHOICE, offsetof(struct fault, phase), 0, 0, phase_names},
    {"count", WL_WHOLE, AT(count), 0, 1e9, NULL},
    {"forgotten", WL_BOOL, AT(forgotten), 0, 0, NULL},
};
#undef AT

/* The kind named at 3. False, with nil and a sentence pushed, if there is none such. */
static bool check_kind(lua_State *L, weir_sim_fault_kind *kind)
{
    const char *name = luaL_checkstring(L, 3);
    char known[200] = "";
    for (int k = 0; k < WEIR_SIM_FAULTS; k++) {
        const char *other = weir_sim_fault_name((weir_sim_fault_kind)k);
        size_t used = strlen(known);
        if (strcmp(name, other) == 0) {
            *kind = (weir_sim_fault_kind)k;
            return true;
        }
        (void)snprintf(known + used, sizeof known - used, "%s%s", used > 0 ? ", " : "", other);
    }
    lua_pushnil(L);
    lua_pushfstring(L, "there is no fault '%s'; there are %s", name, known);
    return false;
}

int wl_sim_fault(lua_State *L)
{
    char why[WEIR_WHY_MAX] = "";
    struct wl_sim *sim = wl_sim_steered(L);
    struct wl_reader reader = {.L = L};
    struct fault read = {.fault = {.factor = 10, .rate = 1}};
    weir_sim_server *server = check_server(L, sim);
    if (server == NULL) return 2;
    if (!check_kind(L, &read.fault.kind)) return 2;
    luaL_checktype(L, 4, LUA_TTABLE);
    if (!wl_read_fields(&reader, 4, fault_fields, COUNT(fault_fields), &read))
        return wl_refuse(L, reader.why);
    read.fault.phase = (weir_sim_phase)read.phase;
    return answer(L, weir_sim_fault_begin(server, &read.fault, why), why);
}

int wl_sim_heal(lua_State *L)
{
    struct wl_sim *sim = wl_sim_steered(L);
    weir_sim_fault_kind kind;
    weir_sim_server *server = check_server(L, sim);
    if (server == NULL) return 2;
    if (!check_kind(L, &kind)) return 2;
    weir_sim_heal(server, kind);
    return answer(L, WEIR_OK, "");
}

/* ---- figures ------------------------------------------------------------------------------------------------ */

int wl_sim_stats(lua_State *L)
{
    weir_sim_stats stats;
    weir_sim_server *server = check_server(L, wl_sim_check(L));
    if (server == NULL) return 2;
    weir_sim_server_stats(server, &stats);
    lua_createtable(L, 0, 16);
    wl_set_count(L, "connects", stats.connects);
    wl_set_count(L, "connects_refused", stats.connects_refused);
    wl_set_count(L, "statements", stats.statements);
    wl_set_count(L, "commits", stats.commits);
    wl_set_count(L, "rollbacks", stats.rollbacks);
    wl_set_count(L, "cancels", stats.cancels);
    wl_set_count(L, "writes", stats.writes);
    wl_set_number(L, "busy", (double)stats.busy_ns / 1e9);
    wl_set_number(L, "wasted", (double)stats.wasted_ns / 1e9);
    wl_set_count(L, "sessions", stats.sessions);
    wl_set_count(L, "running", stats.running);
    wl_set_count(L, "waiting", stats.waiting);
    wl_set_count(L, "sessions_max", stats.sessions_max);
    wl_set_count(L, "waiting_max", stats.waiting_max);
    wl_set_count(L, "connects_in_a_second_max", stats.connects_in_a_second_max);
    return 1;
}
