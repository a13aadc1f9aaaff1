/* Requests and calls. A request is what all calls of one client handle share, read from its table once; a
 * call is the ticket: submitted here, waited for in Lua, collected here, freed as soon as it is collected. */
#include "lua_weir.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SPARES_MAX = 256 };

static const char request_mark, call_mark;

/* ---- requests ------------------------------------------------------------------------------------------ */

struct request_options {
    struct wl_request common;
    int isolation;
};

static const char *const isolation_names[] = {"read committed", "repeatable read", "serializable", NULL};

#define AT(field) offsetof(struct request_options, common.request.field)
static const struct wl_field request_fields[] = {
    {"client", WL_STRING, AT(client), 0, 0, NULL},
    {"claims", WL_STRING, AT(claims), 0, 0, NULL},
    {"backend", WL_STRING, AT(backend), 0, 0, NULL},
    {"isolation", WL_CHOICE, offsetof(struct request_options, isolation), 0, 0, isolation_names},
    {"traceparent", WL_STRING, AT(traceparent), 0, 0, NULL},
    {"readonly", WL_BOOL, AT(readonly), 0, 0, NULL},
    {"idempotent", WL_BOOL, AT(idempotent), 0, 0, NULL},
    {"by_hand", WL_BOOL, AT(by_hand), 0, 0, NULL},
    {"timeout", WL_DURATION, AT(timeout_ns), 0, 0, NULL},
    {"null", WL_BOOL, offsetof(struct request_options, common.null), 0, 0, NULL},
};
#undef AT

/* engine:request(spec) -> request | nil, why. The spec belongs to the request from now on. */
int wl_call_request(lua_State *L)
{
    struct request_options options = {.isolation = -1};
    struct wl_reader reader = {.L = L};
    luaL_checktype(L, 2, LUA_TTABLE);
    if (!wl_read_fields(&reader, 2, request_fields, sizeof request_fields / sizeof *request_fields,
                        &options)) {
        lua_pushnil(L);
        lua_pushstring(L, reader.why);
        return 2;
    }
    if (options.isolation >= 0) options.common.request.isolation = isolation_names[options.isolation];
    struct wl_request *request = lua_newuserdatauv(L, sizeof *request, 1);
    *request = options.common;
    request->mark = &request_mark;
    luaL_setmetatable(L, WL_REQUEST_TYPE);
    lua_pushvalue(L, 2);
    wl_set_anchor(L, -2);
    return 1;
}

/* ---- the life of a call -------------------------------------------------------------------------------- */

static void on_notify(void *user, weir_call *handle)
{
    struct wl_call *call = user;
    struct wl_news *news = wl_news_of(call->engine);
    (void)handle;
    if (call->gate != NULL) {
        call->engine->loop->host.open(call->gate);
        return;
    }
    call->engine->loop->wake = true;
    if (call->ready) return;
    call->ready = true;
    call->next = NULL;
    if (news->last != NULL)
        news->last->next = call;
    else
        news->first = call;
    news->last = call;
}

static void forget_ready(struct wl_call *call)
{
    struct wl_news *news = wl_news_of(call->engine);
    struct wl_call *before = NULL;
    if (!call->ready) return;
    for (struct wl_call *at = news->first; at != call; at = at->next) before = at;
    if (before != NULL)
        before->next = call->next;
    else
        news->first = call->next;
    if (news->last == call) news->last = before;
    call->ready = false;
}

static struct wl_call *new_call(struct wl_engine *engine)
{
    struct wl_call *call = engine->spare;
    if (call != NULL) {
        engine->spare = call->next;
        engine->spares--;
    } else {
        call = malloc(sizeof *call);
        if (call == NULL) return NULL;
    }
    *call = (struct wl_call){.engine = engine};
    engine->references++;
    return call;
}

void wl_call_drop(struct wl_call *call)
{
    struct wl_engine *engine = call->engine;
    struct wl_loop *loop = engine->loop;
    forget_ready(call);
    loop->busy++; /* freeing an unfinished call may report it to policies */
    if (call->handle != NULL) weir_call_free(call->handle);
    loop->busy--;
    if (call->gate != NULL) loop->host.drop(call->gate);
    if (engine->spares < SPARES_MAX && engine->handle != NULL) {
        call->next = engine->spare;
        engine->spare = call;
        engine->spares++;
    } else {
        free(call);
    }
    wl_engine_release(engine);
}

static void empty_box(struct wl_box *box)
{
    struct wl_call *call = box->call;
    box->call = NULL;
    if (call == NULL) return;
    struct wl_loop *loop = call->engine->loop;
    if (loop->busy == 0) {
        wl_call_drop(call);
        return;
    }
    forget_ready(call); /* a finaliser inside a policy: the engine is at work, so later */
    call->next = loop->retired_calls;
    loop->retired_calls = call;
    wl_loop_wake(loop);
}

static int call_free(lua_State *L)
{
    empty_box(wl_check_marked(L, 1, &call_mark, sizeof(struct wl_box), WL_CALL_TYPE));
    return 0;
}

static struct wl_box *push_call(lua_State *L)
{
    struct wl_box *box = lua_newuserdatauv(L, sizeof *box, 0);
    *box = (struct wl_box){.mark = &call_mark};
    luaL_setmetatable(L, WL_CALL_TYPE);
    return box;
}

/* The context at `index` into the request; what is left open may be filled by the host. False, and nil with a sentence
 * pushed. */
static bool read_context(lua_State *L, int index, struct wl_loop *loop, weir_request *request)
{
    size_t length = 0;
    if (lua_type(L, index) == LUA_TSTRING) {
        request->context = lua_tolstring(L, index, &length);
        if (length == 0)
            return (void)wl_refuse(L,
                                   "the context is empty; say what this call is for, like 'GET /contacts'"),
                   false;
        if (strlen(request->context) != length)
            return (void)wl_refuse(L, "the context holds a zero byte"), false;
    }
    if (wl_has_gates(loop)) loop->host.describe(loop->host.ctx, L, request);
    if (request->context != NULL && (length > 0 || lua_isnoneornil(L, index))) return true;
    lua_pushnil(L);
    lua_pushfstring(L, "the context is a %s; say in a string what this call is for, like 'GET /contacts'",
                    lua_isnoneornil(L, index) ? "nil" : luaL_typename(L, index));
    return false;
}

/* The engine at 1, the request at 2 and the context as what weir_submit wants. NULL, and nil with a sentence
 * pushed. */
static struct wl_engine *prepare(lua_State *L, int context, weir_request *request)
{
    char why[WEIR_WHY_MAX];
    struct wl_engine *engine = wl_engine_enterable(L, 1);
    const struct wl_request *common = wl_check_marked(L, 2, &request_mark, sizeof *common, WL_REQUEST_TYPE);
    *request = common->request;
    if (engine == NULL) return (void)wl_refuse(L, "the engine is closed"), NULL;
    struct wl_loop *loop = engine->loop;
    if (wl_has_gates(loop) && !loop->host.may_wait(loop->host.ctx, L, why))
        return (void)wl_refuse(L, why), NULL;
    if (!read_context(L, context, loop, request)) return NULL;
    request->notify = on_notify;
    return engine;
}

/* Its coroutine was killed, or what it worked for has ended: nobody will ever collect it. */
static void on_deserted(void *user)
{
    struct wl_call *call = user;
    struct wl_loop *loop = call->engine->loop;
    if (call->handle == NULL || loop->busy > 0) return;
    loop->busy++;
    weir_call_cancel(call->handle);
    wl_loop_leave(loop);
}

/* Starts a call, or a unit of work if there are no statements, and puts it into the box. False, with a
 * sentence in why, if it cannot be. The box was made before the statements were read into the engine's
 * scratch: making one may run a finaliser, and that one a query of its own. */
static bool begin_call(lua_State *L, struct wl_engine *engine, struct wl_box *box, weir_request *request,
                       const weir_statement *statements, size_t count, char *why)
{
    struct wl_call *call = new_call(engine);
    bool gated = wl_has_gates(engine->loop);
    if (call != NULL && gated) {
        call->gate = engine->loop->host.gate(engine->loop->host.ctx, L, on_deserted, call);
        if (call->gate == NULL) wl_call_drop(call);
    }
    if (call == NULL || (gated && call->gate == NULL)) {
        (void)snprintf(why, WEIR_WHY_MAX, "out of memory");
        return false;
    }
    why[0] = '\0';
    request->user = call;
    engine->loop->busy++;
    int code = statements != NULL
                   ? weir_submit(engine->handle, request, statements, count, &call->handle, why)
                   : weir_begin(engine->handle, request, &call->handle, why);
    wl_loop_leave(engine->loop);
    if (code != WEIR_OK) {
        wl_call_drop(call);
        return false;
    }
    box->call = call;
    return true;
}

/* What Lua gets of a call it is to wait for: the box on top of the stack, and the key to park it by. */
static int hand_out(lua_State *L, const struct wl_box *box)
{
    lua_pushlightuserdata(L, box->call);
    return 2;
}

int wl_call_submit_many(lua_State *L)
{
    char why[WEIR_WHY_MAX];
    size_t count = 0;
    weir_request request;
    lua_settop(L, 4);
    struct wl_engine *engine = prepare(L, 3, &request);
    if (engine == NULL) return 2;
    struct wl_box *box = push_call(L);
    const weir_statement *statements = wl_params_many(L, &engine->scratch, 4, &count, why);
    if (statements == NULL) return wl_refuse(L, why);
    return begin_call(L, engine, box, &request, statements, count, why) ? hand_out(L, box)
                                                                        : wl_refuse(L, why);
}

int wl_call_begin(lua_State *L)
{
    char why[WEIR_WHY_MAX];
    weir_request request;
    struct wl_engine *engine = prepare(L, 3, &request);
    if (engine == NULL) return 2;
    struct wl_box *box = push_call(L);
    return begin_call(L, engine, box, &request, NULL, 0, why) ? hand_out(L, box) : wl_refuse(L, why);
}

/* ---- methods ------------------------------------------------------------------------------------------- */

static struct wl_call *check_call(lua_State *L)
{
    const struct wl_box *box = wl_check_marked(L, 1, &call_mark, sizeof *box, WL_CALL_TYPE);
    if (box->call == NULL || box->call->handle == NULL) luaL_error(L, "the call has been freed");
    return box->call;
}

static bool is_waiting(const struct wl_call *call)
{
    return weir_call_status(call->handle) == WEIR_WAITING;
}

/* Turns the loop until the call has its answer, but no longer than `seconds` (0: not at all) and not once
 * something else wants Lua's attention. True if the call has its answer. */
static bool serve(lua_State *L, struct wl_call *call, double seconds)
{
    if (is_waiting(call) && seconds > 0) wl_loop_turn(L, call->engine->loop, seconds);
    return !is_waiting(call);
}

/* A call that may be acted on: its engine is open and no policy is asking. */
static struct wl_call *check_active(lua_State *L)
{
    struct wl_call *call = check_call(L);
    if (call->engine->loop->busy > 0) luaL_error(L, "a policy must not wait or call the database");
    if (wl_sim_stranger(call->engine)) luaL_error(L, WL_STRANGER);
    return call;
}

static int send_statements(lua_State *L, struct wl_call *call, const weir_statement *statements, size_t count,
                           char *why)
{
    if (statements == NULL) return wl_refuse(L, why);
    if (call->engine->handle == NULL) return wl_refuse(L, "the engine is closed");
    why[0] = '\0';
    call->engine->loop->busy++;
    int code = weir_unit_send(call->handle, statements, count, why);
    wl_loop_leave(call->engine->loop);
    if (code == WEIR_ESTATE) return wl_refuse(L, "the transaction is busy or has ended");
    if (code != WEIR_OK) return wl_refuse(L, why);
    lua_pushboolean(L, 1);
    return 1;
}

static int call_send(lua_State *L)
{
    char why[WEIR_WHY_MAX];
    struct wl_call *call = check_active(L);
    return send_statements(L, call, wl_params_one(L, &call->engine->scratch, 2, lua_gettop(L), why), 1, why);
}

static int call_send_many(lua_State *L)
{
    char why[WEIR_WHY_MAX];
    size_t count = 0;
    struct wl_call *call = check_active(L);
    const weir_statement *statements = wl_params_many(L, &call->engine->scratch, 2, &count, why);
    return send_statements(L, call, statements, count, why);
}

static int call_finish(lua_State *L)
{
    static const char *const names[] = {"commit", "rollback", "failed", NULL};
    struct wl_call *call = check_active(L);
    int how = luaL_checkoption(L, 2, NULL, names);
    call->engine->loop->busy++;
    int code = weir_unit_finish(call->handle, (weir_finish)how);
    wl_loop_leave(call->engine->loop);
    if (code != WEIR_OK) return wl_refuse(L, "the transaction is busy or has ended");
    lua_pushboolean(L, 1);
    return 1;
}

static int call_cancel(lua_State *L)
{
    struct wl_call *call = check_active(L);
    call->engine->loop->busy++;
    weir_call_cancel(call->handle);
    wl_loop_leave(call->engine->loop);
    return 0;
}

static int call_status(lua_State *L)
{
    static const char *const names[] = {"waiting", "ready", "replied", "ended"};
    weir_status status = weir_call_status(check_call(L)->handle);
    lua_pushstring(L, (unsigned)status < 4 ? names[status] : "ended");
    return 1;
}

static int call_waiting(lua_State *L)
{
    lua_pushboolean(L, is_waiting(check_call(L)));
    return 1;
}

/* call:serve(seconds) -> whether it has its answer. See serve(). */
static int call_serve(lua_State *L)
{
    lua_pushboolean(L, serve(L, check_active(L), luaL_checknumber(L, 2)));
    return 1;
}

/* call:pass(): nothing if the call has its answer; else it waits at the call's gate until it may have one, and gives
 * something that is not nil: what nginx resumes with, or true. */
static int call_pass(lua_State *L)
{
    struct wl_call *call = check_active(L);
    if (call->gate == NULL) return luaL_error(L, "this call has no gate");
    if (!is_waiting(call)) return 0;
    int results = wl_gate_pass(call->engine->loop, L, call->gate,
                               (double)weir_call_remaining_ns(call->handle) / 1e9 + 1);
    if (results != 0) return results; /* yields */
    lua_pushboolean(L, 1);
    return 1;
}

static int call_error(lua_State *L)
{
    const weir_error *error = weir_call_error(check_call(L)->handle);
    if (error == NULL) return 0;
    wl_push_error(L, error);
    return 1;
}

static int call_count(lua_State *L)
{
    lua_pushinteger(L, (lua_Integer)weir_call_result_count(check_call(L)->handle));
    return 1;
}

static void push_result(lua_State *L, const weir_result *result, bool nulls)
{
    struct wl_decoder decoder;
    if (result == NULL) {
        lua_pushnil(L);
        return;
    }
    wl_decoder_begin(L, &decoder, nulls);
    wl_push_result(L, &decoder, result);
}

/* call:result(n, nulls) -> what the n-th statement gave.
 * call:result(n, nulls, native) -> the same with only these types decoded, { name, oid, ... } of the columns, notices */
static int call_result(lua_State *L)
{
    struct wl_call *call = check_call(L);
    lua_Integer number = luaL_checkinteger(L, 2);
    bool nulls = lua_toboolean(L, 3) != 0;
    lua_settop(L, 4);
    const weir_result *result = number < 1 ? NULL : weir_call_result(call->handle, (size_t)number - 1);
    if (result == NULL || lua_isnil(L, 4)) {
        push_result(L, result, nulls);
        return 1;
    }
    struct wl_decoder decoder;
    luaL_checktype(L, 4, LUA_TTABLE);
    wl_decoder_begin(L, &decoder, nulls);
    decoder.native = 4;
    wl_push_result(L, &decoder, result);
    wl_push_particulars(L, result);
    return 3;
}

/* Pushes what the call's one statement gave | nil, failure; and frees the call: the whole end of a single
 * call in one step, as most calls are such. The box must be on the stack, since making a table may raise. */
static int collect(lua_State *L, struct wl_box *box, bool nulls)
{
    const weir_error *error = weir_call_error(box->call->handle);
    if (error != NULL) {
        lua_pushnil(L);
        wl_push_error(L, error);
    } else {
        push_result(L, weir_call_result(box->call->handle, 0), nulls);
    }
    empty_box(box);
    return error != NULL ? 2 : 1;
}

static int call_attempt(lua_State *L)
{
    lua_pushinteger(L, (lua_Integer)weir_call_attempt(check_call(L)->handle));
    return 1;
}

static int call_remaining(lua_State *L)
{
    lua_pushnumber(L, (lua_Number)weir_call_remaining_ns(check_call(L)->handle) / 1e9);
    return 1;
}

/* ---- single calls -------------------------------------------------------------------------------------- */

/* A userdata with a finaliser is the dearest part of a short call, so the box of a query that has been collected serves
 * another one. A box in use is in no table: if its coroutine is killed, the finaliser frees the call. */
static struct wl_box *borrow_box(lua_State *L, struct wl_loop *loop)
{
    if (loop->spare_boxes == 0) return push_call(L);
    lua_rawgeti(L, lua_upvalueindex(1), (int)loop->spare_boxes);
    lua_pushnil(L);
    lua_rawseti(L, lua_upvalueindex(1), (int)loop->spare_boxes--);
    return lua_touserdata(L, -1);
}

/* The box at index is empty and the caller's alone. */
static void give_box_back(lua_State *L, struct wl_loop *loop, int index)
{
    if (loop->spare_boxes >= SPARES_MAX) return;
    lua_pushvalue(L, index);
    lua_rawseti(L, lua_upvalueindex(1), (int)loop->spare_boxes + 1); /* may raise */
    loop->spare_boxes++;
}

int wl_call_collect(lua_State *L)
{
    struct wl_loop *loop = check_active(L)->engine->loop;
    int results = collect(L, lua_touserdata(L, 1), lua_toboolean(L, 2) != 0);
    give_box_back(L, loop, 1);
    return results;
}

int wl_call_query(lua_State *L)
{
    char why[WEIR_WHY_MAX];
    weir_request request;
    if (lua_gettop(L) < 5) lua_settop(L, 5); /* no SQL: nil, and the box is not taken for it */
    int last = lua_gettop(L);
    double seconds = luaL_checknumber(L, 3);
    struct wl_engine *engine = prepare(L, 4, &request);
    if (engine == NULL) return 2;
    struct wl_loop *loop = engine->loop;
    struct wl_box *box = borrow_box(L, loop);
    int place = lua_gettop(L);
    const weir_statement *statement = wl_params_one(L, &engine->scratch, 5, last, why);
    if (statement == NULL) return wl_refuse(L, why);
    if (!begin_call(L, engine, box, &request, statement, 1, why)) return wl_refuse(L, why);
    if (!serve(L, box->call, seconds)) {
        lua_pushnil(L);
        lua_pushnil(L);
        lua_pushvalue(L, place);
        return 2 + hand_out(L, box);
    }
    int results = collect(L, box, ((const struct wl_request *)lua_touserdata(L, 2))->null);
    give_box_back(L, loop, place);
    return results;
}

static void make_type(lua_State *L, const char *name, const luaL_Reg *methods)
{
    luaL_newmetatable(L, name);
    luaL_setfuncs(L, methods, 0);
    lua_pushvalue(L, -1);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
}

void wl_call_open(lua_State *L)
{
    static const luaL_Reg none[] = {{NULL, NULL}};
    static const luaL_Reg methods[] = {
        {"send", call_send},           {"send_many", call_send_many},
        {"finish", call_finish},       {"cancel", call_cancel},
        {"status", call_status},       {"waiting", call_waiting},
        {"error", call_error},         {"count", call_count},
        {"result", call_result},       {"attempt", call_attempt},
        {"remaining", call_remaining}, {"serve", call_serve},
        {"pass", call_pass},           {"free", call_free},
        {"__gc", call_free},           {NULL, NULL},
    };
    make_type(L, WL_REQUEST_TYPE, none);
    make_type(L, WL_CALL_TYPE, methods);
}
