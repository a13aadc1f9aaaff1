/* The table given to weir.open, as weir_options; and the tables of single guards. */
#include "lua_weir.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))

static const double uint32_most = 4294967295.0;

static const char *const reset_names[] = {"auto", "always", "never", NULL};
static const char *const trace_names[] = {"off", "comment", NULL};
static const char *const format_names[] = {"logfmt", "json", NULL};
static const char *const level_names[] = {"info", "warn", "error", "off", NULL};
static const char *const queue_names[] = {"adaptive", "fifo", "codel", NULL};
static const char *const backoff_names[] = {"full", "equal", "decorrelated", "exponential", "constant", NULL};
static const char *const budget_names[] = {"tokens", "ratio", NULL};
static const char *const state_names[] = {"closed",        "open",     "half_open",    "forced_open",
                                          "forced_closed", "disabled", "metrics_only", NULL};

/* ---- guards -------------------------------------------------------------------------------------------- */

#define AT(field) offsetof(weir_breaker_config, field)
static const struct wl_field breaker_fields[] = {
    {"name", WL_NESTED, 0, 0, 0, NULL},
    {"clock", WL_NESTED, 0, 0, 0, NULL},
    {"window", WL_DURATION, AT(window_ns), 0, 0, NULL},
    {"window_calls", WL_WHOLE, AT(window_calls), 0, 4096, NULL},
    {"min_calls", WL_WHOLE, AT(min_calls), 1, uint32_most, NULL},
    {"failure_rate", WL_NUMBER, AT(failure_rate), 0, 1, NULL},
    {"slow_call", WL_SECONDS, AT(slow_call_ns), 0, 0, NULL},
    {"slow_rate", WL_NUMBER, AT(slow_rate), 0, 1, NULL},
    {"consecutive", WL_WHOLE, AT(consecutive), 0, uint32_most, NULL},
    {"open_for", WL_NESTED, 0, 0, 0, NULL},
    {"half_open", WL_NESTED, 0, 0, 0, NULL},
    {"lease", WL_DURATION, AT(lease_ns), 0, 0, NULL},
    {"initial", WL_CHOICE, AT(initial), 0, 0, state_names},
};
static const struct wl_field open_for_field = {"open_for", WL_DURATION, AT(open_for_ns), 0, 0, NULL};
static const struct wl_field half_open_fields[] = {
    {"permits", WL_WHOLE, AT(permits), 1, 64, NULL},
    {"wait", WL_SECONDS, AT(half_open_wait_ns), 0, 0, NULL},
};
#undef AT

static bool has(lua_State *L, int index, const char *name)
{
    lua_pushstring(L, name);
    lua_rawget(L, index);
    bool there = !lua_isnil(L, -1);
    lua_pop(L, 1);
    return there;
}

/* open_for may also be a function of how often in a row the breaker opened; lua_breaker.c sees to that one.
 */
static bool read_open_for(struct wl_reader *reader, int index, weir_breaker_config *out)
{
    lua_State *L = reader->L;
    lua_pushstring(L, open_for_field.name);
    lua_rawget(L, index);
    int type = lua_type(L, -1);
    double seconds = type == LUA_TNUMBER ? lua_tonumber(L, -1) : 0;
    lua_pop(L, 1);
    if (type == LUA_TNIL || type == LUA_TFUNCTION) return true;
    if (type != LUA_TNUMBER) {
        return wl_complain(reader, "open_for",
                           "is a %s; it must be a number of seconds or a function giving one",
                           lua_typename(L, type));
    }
    if (!(seconds >= 1e-9 && seconds <= 366.0 * 24 * 3600)) {
        return wl_complain(reader, "open_for",
                           "is %.14g; it must be more than 0 and at most a year, in seconds", seconds);
    }
    out->open_for_ns = (uint64_t)(seconds * 1e9 + 0.5);
    return true;
}

bool wl_breaker_read(struct wl_reader *reader, int index, weir_breaker_config *out)
{
    lua_State *L = reader->L;
    index = lua_absindex(L, index);
    if (!wl_read_fields(reader, index, breaker_fields, COUNT(breaker_fields), out)) return false;
    if (!read_open_for(reader, index, out)) return false;
    /* Who names `consecutive` and no rate means it to judge alone. */
    out->rates_off = out->consecutive > 0 && !has(L, index, "failure_rate") && !has(L, index, "slow_rate") &&
                     !has(L, index, "slow_call");
    if (wl_enter_table(reader, index, "half_open")) {
        (void)wl_read_fields(reader, -1, half_open_fields, COUNT(half_open_fields), out);
        wl_leave_table(reader);
    }
    return reader->why[0] == '\0';
}

static const struct wl_field budget_fields[] = {
    {"name", WL_NESTED, 0, 0, 0, NULL},
    {"clock", WL_NESTED, 0, 0, 0, NULL},
    {"kind", WL_NESTED, 0, 0, 0, NULL},
    {"per_success", WL_NUMBER, offsetof(weir_budget_config, per_success), 0, 1e6, NULL},
    {"floor", WL_NUMBER, offsetof(weir_budget_config, floor), 0, 1e9, NULL},
    {"cap", WL_NUMBER, offsetof(weir_budget_config, cap), 0, 1e9, NULL},
    {"window", WL_DURATION, offsetof(weir_budget_config, window_ns), 0, 0, NULL},
};
static const struct wl_field budget_kind_field = {"kind", WL_CHOICE, 0, 0, 0, budget_names};

/* Reads one choice that lands in an int of its own. */
static bool read_one_choice(struct wl_reader *reader, int index, const struct wl_field *field, int *out)
{
    lua_State *L = reader->L;
    lua_createtable(L, 0, 1);
    lua_pushstring(L, field->name);
    lua_pushvalue(L, -1);
    lua_rawget(L, index);
    lua_rawset(L, -3);
    bool good = wl_read_fields(reader, -1, field, 1, out);
    lua_pop(L, 1);
    return good;
}

bool wl_budget_read(struct wl_reader *reader, int index, weir_budget_config *out)
{
    index = lua_absindex(reader->L, index);
    int kind = out->ratio ? 1 : 0;
    if (!wl_read_fields(reader, index, budget_fields, COUNT(budget_fields), out)) return false;
    if (!read_one_choice(reader, index, &budget_kind_field, &kind)) return false;
    out->ratio = kind == 1;
    return true;
}

#define AT(field) offsetof(struct wl_backoff, field)
static const struct wl_field backoff_fields[] = {
    {"kind", WL_CHOICE, AT(kind), 0, 0, backoff_names},
    {"base", WL_DURATION, AT(base_ns), 0, 0, NULL},
    {"cap", WL_DURATION, AT(cap_ns), 0, 0, NULL},
    {"factor", WL_NUMBER, AT(factor), 1, 1000, NULL},
    {"seed", WL_NESTED, 0, 0, 0, NULL},
};
#undef AT

static bool read_seed(struct wl_reader *reader, int index, uint64_t *seed, bool *seeded)
{
    lua_State *L = reader->L;
    lua_pushliteral(L, "seed");
    lua_rawget(L, index);
    int type = lua_type(L, -1);
    double value = type == LUA_TNUMBER ? lua_tonumber(L, -1) : 0;
    lua_pop(L, 1);
    if (type == LUA_TNIL) return true;
    if (type != LUA_TNUMBER)
        return wl_complain(reader, "seed", "is a %s; it must be a whole number", lua_typename(L, type));
    if (!(value >= 0 && value <= 9007199254740992.0)) {
        return wl_complain(reader, "seed", "is %.14g; it must be a whole number from 0 to 2^53", value);
    }
    *seed = (uint64_t)value;
    *seeded = true;
    return true;
}

bool wl_backoff_read(struct wl_reader *reader, int index, struct wl_backoff *out)
{
    index = lua_absindex(reader->L, index);
    return wl_read_fields(reader, index, backoff_fields, COUNT(backoff_fields), out) &&
           read_seed(reader, index, &out->seed, &out->seeded);
}

/* ---- members: backends, clients, checks ---------------------------------------------------------------- */

static bool is_name(const char *name)
{
    size_t length = strlen(name);
    for (size_t i = 0; i < length; i++) {
        if (!isalnum((unsigned char)name[i]) && name[i] != '-' && name[i] != '_') return false;
    }
    return length >= 1 && length <= 31;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The keys of the table on top, sorted, since the order of a Lua table means nothing and may change between
 * runs. */
static bool read_names(struct wl_reader *reader, const char **names, size_t most, size_t *count)
{
    lua_State *L = reader->L;
    *count = 0;
    for (lua_pushnil(L); lua_next(L, -2) != 0; lua_pop(L, 1)) {
        bool good = lua_type(L, -2) == LUA_TSTRING && is_name(lua_tostring(L, -2));
        if (!good) {
            (void)wl_complain(reader, "", "has the key '%.40s'; names are 1 to 31 letters, digits, - and _",
                              lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : luaL_typename(L, -2));
        } else if (*count == most) {
            good = wl_complain(reader, "", "has more than %d members; it must have at most %d", (int)most,
                               (int)most);
        }
        if (!good) {
            lua_pop(L, 2);
            return false;
        }
        names[(*count)++] = lua_tostring(L, -2);
    }
    qsort(names, *count, sizeof *names, by_name);
    return true;
}

static const struct wl_field backend_fields[] = {
    {"conninfo", WL_STRING, offsetof(weir_backend, conninfo), 0, 0, NULL},
    {"pooler", WL_BOOL, offsetof(weir_backend, pooler), 0, 0, NULL},
    {"critical", WL_BOOL, offsetof(weir_backend, critical), 0, 0, NULL},
};

static bool read_backend(struct wl_reader *reader, const char *name, weir_backend *backend)
{
    lua_State *L = reader->L;
    *backend = (weir_backend){.name = name};
    lua_pushstring(L, name);
    lua_rawget(L, -2);
    if (lua_type(L, -1) == LUA_TSTRING) {
        backend->conninfo = lua_tostring(L, -1);
        bool whole = strlen(backend->conninfo) == lua_rawlen(L, -1);
        lua_pop(L, 1);
        return whole || wl_complain(reader, name, "holds a zero byte, which no connection string may");
    }
    const char *type = luaL_typename(L, -1);
    lua_pop(L, 1);
    if (!wl_enter_table(reader, -1, name)) {
        reader->why[0] = '\0';
        return wl_complain(reader, name, "is a %s; it must be a connection string or a table with conninfo",
                           type);
    }
    bool good = wl_read_fields(reader, -1, backend_fields, COUNT(backend_fields), backend) &&
                (backend->conninfo != NULL || wl_complain(reader, "conninfo", "is missing"));
    wl_leave_table(reader);
    return good;
}

/* The first backend is the default route: `primary`, or the only one there is. */
static bool order_backends(struct wl_reader *reader, const char **names, size_t count, bool routed)
{
    if (count == 0) {
        return wl_complain(reader, "",
                           "is empty; it must have at least one backend (is an environment variable unset?)");
    }
    for (size_t i = 0; i < count; i++) {
        if (strcmp(names[i], "primary") != 0) continue;
        const char *primary = names[i];
        memmove(names + 1, names, i * sizeof *names);
        names[0] = primary;
        return true;
    }
    if (count == 1 || routed) return true;
    return wl_complain(reader, "",
                       "has %d members and none is named primary; name one so, or give a route function",
                       (int)count);
}

static bool read_backends(struct wl_reader *reader, int index, bool routed, struct wl_options *out)
{
    const char *names[WL_BACKENDS_MAX];
    size_t count = 0;
    if (!wl_enter_table(reader, index, "backends")) return wl_complain(reader, "backends", "is missing");
    bool good =
        read_names(reader, names, WL_BACKENDS_MAX, &count) && order_backends(reader, names, count, routed);
    for (size_t i = 0; good && i < count; i++) good = read_backend(reader, names[i], &out->backends[i]);
    out->engine.backends = out->backends;
    out->engine.backend_count = count;
    wl_leave_table(reader);
    return good;
}

static const struct wl_field client_fields[] = {
    {"user", WL_STRING, offsetof(weir_client, user), 0, 0, NULL},
    {"password", WL_STRING, offsetof(weir_client, password), 0, 0, NULL},
    {"role", WL_STRING, offsetof(weir_client, role), 0, 0, NULL},
    {"bypass_rls", WL_BOOL, offsetof(weir_client, bypass_rls), 0, 0, NULL},
    {"min", WL_WHOLE, offsetof(weir_client, min), 0, 10000, NULL},
    {"max", WL_WHOLE, offsetof(weir_client, max), 1, 10000, NULL},
    {"queue_max", WL_WHOLE, offsetof(weir_client, queue_max), 0, 1000000, NULL},
    {"multiplex", WL_WHOLE, offsetof(weir_client, multiplex), 0, 64, NULL},
};

static bool read_client(struct wl_reader *reader, const char *name, weir_client *client)
{
    *client = (weir_client){.name = name, .max = 10};
    if (!wl_enter_table(reader, -1, name)) return wl_complain(reader, name, "must be a table");
    bool good = wl_read_fields(reader, -1, client_fields, COUNT(client_fields), client);
    if (good && client->role != NULL && client->bypass_rls) {
        good = wl_complain(
            reader, "",
            "has both role and bypass_rls; a client is ANON (role) or SERVICE (bypass_rls = true), "
            "never both");
    } else if (good && client->role == NULL && !client->bypass_rls) {
        good = wl_complain(reader, "",
                           "needs role = '...' (ANON: users under row-level security) or bypass_rls = true "
                           "(SERVICE: admin work)");
    } else if (good && client->min > client->max) {
        good = wl_complain(reader, "min", "is %u; it must be at most max, which is %u", (unsigned)client->min,
                           (unsigned)client->max);
    }
    client->kind = client->role != NULL ? WEIR_ANON : WEIR_SERVICE;
    wl_leave_table(reader);
    return good;
}

static bool read_clients(struct wl_reader *reader, int index, struct wl_options *out)
{
    const char *names[WL_CLIENTS_MAX];
    size_t count = 0;
    if (!wl_enter_table(reader, index, "clients")) return wl_complain(reader, "clients", "is missing");
    bool good = read_names(reader, names, WL_CLIENTS_MAX, &count);
    if (good && count == 0) good = wl_complain(reader, "", "is empty; it must have at least one client");
    for (size_t i = 0; good && i < count; i++) good = read_client(reader, names[i], &out->clients[i]);
    out->engine.clients = out->clients;
    out->engine.client_count = count;
    wl_leave_table(reader);
    return good;
}

struct check { /* a check's options */
    weir_check engine;
    uint64_t timeout_ns; /* here for its type: who runs checks is the Lua face */
};

static const struct wl_field check_fields[] = {
    {"check", WL_NESTED, 0, 0, 0, NULL},
    {"critical", WL_BOOL, offsetof(struct check, engine.critical), 0, 0, NULL},
    {"timeout", WL_DURATION, offsetof(struct check, timeout_ns), 0, 0, NULL},
};

static bool read_check(struct wl_reader *reader, const char *name, weir_check *out)
{
    struct check check = {.engine = {.name = name}};
    lua_State *L = reader->L;
    *out = check.engine;
    lua_pushstring(L, name);
    lua_rawget(L, -2);
    bool plain = lua_type(L, -1) == LUA_TFUNCTION;
    lua_pop(L, 1);
    if (plain) return true;
    if (!wl_enter_table(reader, -1, name)) {
        reader->why[0] = '\0';
        return wl_complain(reader, name, "must be a function, or a table with check = function");
    }
    bool good = wl_read_fields(reader, -1, check_fields, COUNT(check_fields), &check);
    *out = check.engine;
    lua_pushliteral(L, "check");
    lua_rawget(L, -2);
    if (good && lua_type(L, -1) != LUA_TFUNCTION) good = wl_complain(reader, "check", "must be a function");
    lua_pop(L, 1);
    wl_leave_table(reader);
    return good;
}

/* ---- the whole ----------------------------------------------------------------------------------------- */

#define AT(field) offsetof(struct wl_options, engine.field)
static const struct wl_field health_fields[] = {
    {"interval", WL_SECONDS, AT(health_interval_ns), 0, 0, NULL},
    {"probe_interval", WL_DURATION, AT(probe_interval_ns), 0, 0, NULL},
    {"checks", WL_NESTED, 0, 0, 0, NULL},
};
static const struct wl_field queue_fields[] = {
    {"kind", WL_CHOICE, AT(queue), 0, 0, queue_names},
    {"target", WL_DURATION, AT(queue_target_ns), 0, 0, NULL},
    {"interval", WL_DURATION, AT(queue_interval_ns), 0, 0, NULL},
};
static const struct wl_field log_fields[] = {
    {"to", WL_STRING, AT(log_to), 0, 0, NULL},
    {"format", WL_CHOICE, offsetof(struct wl_options, log_format), 0, 0, format_names},
    {"level", WL_CHOICE, AT(log_level), 0, 0, level_names},
};
static const struct wl_field queue_field = {"queue", WL_CHOICE, 0, 0, 0, queue_names};
static const struct wl_field top_fields[] = {
    {"name", WL_STRING, AT(name), 0, 0, NULL},
    {"backends", WL_NESTED, 0, 0, 0, NULL},
    {"clients", WL_NESTED, 0, 0, 0, NULL},
    {"timeout", WL_DURATION, AT(timeout_ns), 0, 0, NULL},
    {"connect_timeout", WL_DURATION, AT(connect_timeout_ns), 0, 0, NULL},
    {"acquire_timeout", WL_SECONDS, AT(acquire_timeout_ns), 0, 0, NULL},
    {"idle_timeout", WL_SECONDS, AT(idle_timeout_ns), 0, 0, NULL},
    {"lifetime", WL_SECONDS, AT(lifetime_ns), 0, 0, NULL},
    {"leak_after", WL_SECONDS, AT(leak_after_ns), 0, 0, NULL},
    {"cancel_wait", WL_DURATION, AT(cancel_wait_ns), 0, 0, NULL},
    {"connect_at_once", WL_WHOLE, AT(connect_at_once), 1, 16, NULL},
    {"connect_rate", WL_NUMBER, AT(connect_rate), 0, 1e6, NULL},
    {"prepared", WL_WHOLE, AT(prepared_max), 0, 10000, NULL},
    {"queue", WL_NESTED, 0, 0, 0, NULL},
    {"reset", WL_CHOICE, AT(reset), 0, 0, reset_names},
    {"breaker", WL_NESTED, 0, 0, 0, NULL},
    {"backoff", WL_NESTED, 0, 0, 0, NULL},
    {"budget", WL_NESTED, 0, 0, 0, NULL},
    {"retries", WL_WHOLE, AT(retries), 0, 1000, NULL},
    {"retries_max", WL_WHOLE, AT(retries_max), 0, 1000, NULL},
    {"retry", WL_NESTED, 0, 0, 0, NULL},
    {"route", WL_NESTED, 0, 0, 0, NULL},
    {"label", WL_NESTED, 0, 0, 0, NULL},
    {"health", WL_NESTED, 0, 0, 0, NULL},
    {"area", WL_STRING, AT(area_path), 0, 0, NULL},
    {"area_size", WL_NUMBER, offsetof(struct wl_options, area_size), 0, 1e13, NULL},
    {"area_group_read", WL_BOOL, AT(area_group_read), 0, 0, NULL},
    {"log", WL_NESTED, 0, 0, 0, NULL},
    {"slow_log", WL_SECONDS, AT(slow_log_ns), 0, 0, NULL},
    {"trace", WL_CHOICE, AT(trace), 0, 0, trace_names},
    {"policy_faults", WL_WHOLE, AT(policy_faults_max), 1, 1000000, NULL},
    {"policy_slice", WL_DURATION, offsetof(struct wl_options, policy_slice_ns), 0, 0, NULL},
    {"seed", WL_NESTED, 0, 0, 0, NULL},
    {"null", WL_BOOL, offsetof(struct wl_options, null), 0, 0, NULL},
};
#undef AT

static int type_of(lua_State *L, int index, const char *name)
{
    lua_pushstring(L, name);
    lua_rawget(L, index);
    int type = lua_type(L, -1);
    lua_pop(L, 1);
    return type;
}

static const struct wl_field retry_field = {"retry", WL_WHOLE, offsetof(struct wl_options, engine.retries),
                                            0,       1000,     NULL};

static bool read_policies(struct wl_reader *reader, int index, struct wl_options *out)
{
    static const char *const names[] = {"retry", "route", "label"};
    lua_State *L = reader->L;
    for (size_t i = 0; i < COUNT(names); i++) {
        int type = type_of(L, index, names[i]);
        if (type == LUA_TNIL || type == LUA_TFUNCTION) continue;
        if (i > 0 || type != LUA_TNUMBER) {
            return wl_complain(reader, names[i], "is a %s; it must be a function%s", lua_typename(L, type),
                               i == 0 ? ", or a number of retries" : "");
        }
        lua_createtable(L, 0, 1); /* retry = 5 is short for retries = 5, and read by the same rules */
        lua_pushliteral(L, "retry");
        lua_pushvalue(L, -1);
        lua_rawget(L, index);
        lua_rawset(L, -3);
        bool good = wl_read_fields(reader, -1, &retry_field, 1, out);
        lua_pop(L, 1);
        if (!good) return false;
    }
    if (type_of(L, index, "retries_max") == LUA_TNIL && out->engine.retries_max < out->engine.retries) {
        out->engine.retries_max = out->engine.retries;
    }
    return true;
}

static bool read_queue(struct wl_reader *reader, int index, struct wl_options *out)
{
    if (type_of(reader->L, index, "queue") == LUA_TSTRING) {
        int kind = 0;
        if (!read_one_choice(reader, index, &queue_field, &kind)) return false;
        out->engine.queue = (weir_queue)kind;
        return true;
    }
    if (wl_enter_table(reader, index, "queue")) {
        (void)wl_read_fields(reader, -1, queue_fields, COUNT(queue_fields), out);
        wl_leave_table(reader);
    }
    return reader->why[0] == '\0';
}

static bool read_checks(struct wl_reader *reader, struct wl_options *out)
{
    const char *names[WL_CHECKS_MAX];
    size_t count = 0;
    if (!wl_enter_table(reader, -1, "checks")) return reader->why[0] == '\0';
    bool good = read_names(reader, names, WL_CHECKS_MAX, &count);
    for (size_t i = 0; good && i < count; i++) good = read_check(reader, names[i], &out->checks[i]);
    out->engine.checks = out->checks;
    out->engine.check_count = count;
    wl_leave_table(reader);
    return good;
}

static bool read_health(struct wl_reader *reader, int index, struct wl_options *out)
{
    if (!wl_enter_table(reader, index, "health")) return reader->why[0] == '\0';
    bool good =
        wl_read_fields(reader, -1, health_fields, COUNT(health_fields), out) && read_checks(reader, out);
    wl_leave_table(reader);
    return good;
}

/* The surrounding program's own log is named after it, and the default where there is one. Elsewhere there is none unless
 * somebody asks for it, were it only by slow_log: a policy for nginx is to work in a script as well. */
static void settle_log(const weir_lua_host *host, bool wanted, weir_options *engine)
{
    const char *to = engine->log_to;
    if (to == NULL && !host->logs && (wanted || engine->slow_log_ns > 0)) engine->log_to = "stderr";
    if (to != NULL && host->logs && strcmp(to, host->name) == 0) engine->log_to = NULL;
}

static bool read_log(struct wl_reader *reader, int index, struct wl_options *out)
{
    weir_options *engine = &out->engine;
    int type = type_of(reader->L, index, "log");
    if (type == LUA_TBOOLEAN) {
        lua_pushliteral(reader->L, "log");
        lua_rawget(reader->L, index);
        bool on = lua_toboolean(reader->L, -1) != 0;
        lua_pop(reader->L, 1);
        engine->log_level = WEIR_LOG_OFF;
        return !on || wl_complain(reader, "log", "is true; it must be a table, or false");
    }
    if (wl_enter_table(reader, index, "log")) {
        (void)wl_read_fields(reader, -1, log_fields, COUNT(log_fields), out);
        wl_leave_table(reader);
    }
    engine->log_json = out->log_format == 1;
    settle_log(&wl_loop_of(reader->L)->host, type == LUA_TTABLE, engine);
    return reader->why[0] == '\0';
}

/* Some keys make sense only where a guard stands alone; silently ignoring one would be a lie. */
static bool refuse_key(struct wl_reader *reader, const char *name, const char *why)
{
    if (type_of(reader->L, lua_gettop(reader->L), name) == LUA_TNIL) return true;
    return wl_complain(reader, name, "is not for weir.open: %s", why);
}

static bool read_backoff(struct wl_reader *reader, int index, struct wl_options *out)
{
    weir_options *engine = &out->engine;
    struct wl_backoff backoff = {(int)engine->backoff,
                                 engine->backoff_base_ns,
                                 engine->backoff_cap_ns,
                                 engine->backoff_factor,
                                 0,
                                 false};
    if (!wl_enter_table(reader, index, "backoff")) return reader->why[0] == '\0';
    bool good = wl_backoff_read(reader, -1, &backoff) &&
                refuse_key(reader, "seed", "all of the engine follows its own seed");
    wl_leave_table(reader);
    engine->backoff = (weir_backoff_kind)backoff.kind;
    engine->backoff_base_ns = backoff.base_ns;
    engine->backoff_cap_ns = backoff.cap_ns;
    engine->backoff_factor = backoff.factor;
    return good;
}

static bool read_breaker(struct wl_reader *reader, int index, struct wl_options *out)
{
    if (!wl_enter_table(reader, index, "breaker")) return reader->why[0] == '\0';
    bool good = refuse_key(reader, "name", "the breakers of pools are named after them") &&
                refuse_key(reader, "clock", "the engine has its own");
    if (good && type_of(reader->L, lua_gettop(reader->L), "open_for") == LUA_TFUNCTION) {
        good = wl_complain(reader, "open_for",
                           "is a function; the breakers of pools are shared between processes and take a "
                           "number of seconds");
    }
    good = good && wl_breaker_read(reader, -1, &out->engine.breaker);
    wl_leave_table(reader);
    return good;
}

static bool read_budget(struct wl_reader *reader, int index, struct wl_options *out)
{
    if (!wl_enter_table(reader, index, "budget")) return reader->why[0] == '\0';
    bool good = refuse_key(reader, "name", "the budgets of pools are named after them") &&
                refuse_key(reader, "clock", "the engine has its own") &&
                wl_budget_read(reader, -1, &out->engine.budget);
    wl_leave_table(reader);
    return good;
}

static bool read_guards(struct wl_reader *reader, int index, struct wl_options *out)
{
    return read_breaker(reader, index, out) && read_budget(reader, index, out) &&
           read_backoff(reader, index, out);
}

bool wl_options_read(struct wl_reader *reader, int index, struct wl_options *out)
{
    index = lua_absindex(reader->L, index);
    weir_options_defaults(&out->engine);
    out->policy_slice_ns = 10 * 1000000u;
    bool routed = type_of(reader->L, index, "route") == LUA_TFUNCTION;
    bool read = wl_read_fields(reader, index, top_fields, COUNT(top_fields), out);
    out->engine.area_size = (uint64_t)out->area_size;
    return read && read_policies(reader, index, out) && read_backends(reader, index, routed, out) &&
           read_clients(reader, index, out) && read_queue(reader, index, out) &&
           read_guards(reader, index, out) && read_health(reader, index, out) &&
           read_log(reader, index, out) && read_seed(reader, index, &out->seed, &out->seeded);
}
