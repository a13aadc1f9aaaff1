/* Areas: an engine's own and those that are attached, seen and steered in the same way. */
#include "lua_weir.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define WL_AREA_TYPE "weir.area"

static const char area_mark;

struct area_box {
    const char *mark;
    weir_area *attached;      /* NULL: closed, or an engine's */
    struct wl_engine *engine; /* whose own area it is; held on to. NULL: attached or closed */
    char *text;               /* for documents */
    size_t room;
};

/* ---- handles ----------------------------------------------------------------------------------------------------- */

static struct area_box *check_box(lua_State *L)
{
    return wl_check_marked(L, 1, &area_mark, sizeof(struct area_box), WL_AREA_TYPE);
}

/* The handle, or NULL and a sentence. Raises inside a policy, which must not look at its own engine. */
static weir_area *handle_of(lua_State *L, const struct area_box *box, const char **why)
{
    *why = "the area is closed";
    if (box->engine == NULL) return box->attached;
    if (box->engine->loop->busy > 0) luaL_error(L, "a policy must not wait or call the database");
    *why = "the engine is closed";
    return box->engine->handle != NULL ? weir_engine_area(box->engine->handle) : NULL;
}

static void release(struct area_box *box)
{
    weir_area_detach(box->attached);
    free(box->text);
    struct wl_engine *engine = box->engine;
    box->attached = NULL;
    box->engine = NULL;
    box->text = NULL;
    box->room = 0;
    if (engine != NULL) wl_engine_release(engine);
}

static int area_close(lua_State *L)
{
    release(check_box(L));
    return 0;
}

static int area_collect(lua_State *L)
{
    release(luaL_checkudata(L, 1, WL_AREA_TYPE));
    return 0;
}

static struct area_box *new_box(lua_State *L)
{
    struct area_box *box = lua_newuserdatauv(L, sizeof *box, 1);
    *box = (struct area_box){.mark = &area_mark};
    luaL_setmetatable(L, WL_AREA_TYPE);
    return box;
}

/* An engine's own area is left alone by weir_area_detach. */
void weir_lua_push_area(lua_State *L, weir_area *area)
{
    new_box(L)->attached = area;
}

/* core.attach(path) -> area | nil, why */
int wl_area_attach(lua_State *L)
{
    char why[WEIR_WHY_MAX] = "";
    const char *path = luaL_checkstring(L, 1);
    struct area_box *box = new_box(L);
    if (weir_area_attach(&box->attached, path, why) != WEIR_OK) return wl_refuse(L, why);
    return 1;
}

/* engine:area() -> area; a closed engine's says so when it is asked for something. */
int wl_area_of_engine(lua_State *L)
{
    struct wl_engine *engine = wl_engine_lookable(L);
    if (engine == NULL) return wl_refuse(L, "the engine is closed");
    struct area_box *box = new_box(L);
    engine->references++;
    box->engine = engine;
    return 1;
}

/* ---- seeing ------------------------------------------------------------------------------------------------------ */

static uint64_t count_at(lua_State *L, int index, double otherwise)
{
    double number = luaL_optnumber(L, index, otherwise);
    luaL_argcheck(L, number >= 0 && number <= 9007199254740992.0, index, "a whole number is needed");
    return (uint64_t)number;
}

/* area:json(document, [argument]) -> text | nil, why. What is told may grow between asking for its length and writing it. */
static int area_json(lua_State *L)
{
    const char *why;
    struct area_box *box = check_box(L);
    const char *document = luaL_checkstring(L, 2);
    uint64_t argument = count_at(L, 3, strcmp(document, "calls") == 0 ? 100 : 0);
    weir_area *area = handle_of(L, box, &why);
    if (area == NULL) return wl_refuse(L, why);
    for (;;) {
        size_t length = weir_area_json(area, document, argument, box->text, box->room);
        if (length == 0) return luaL_argerror(L, 2, "there is no such document");
        if (length < box->room) {
            lua_pushlstring(L, box->text, length);
            return 1;
        }
        char *larger = realloc(box->text, length + length / 4 + 256);
        if (larger == NULL) return luaL_error(L, "not enough memory");
        box->text = larger;
        box->room = length + length / 4 + 256;
    }
}

/* area:look() -> "live" | "deserted" | "replaced" | "gone" | "damaged", a sentence ("" if live) */
static int area_look(lua_State *L)
{
    const char *closed;
    char why[WEIR_WHY_MAX] = "";
    weir_area *area = handle_of(L, check_box(L), &closed);
    if (area == NULL) return wl_refuse(L, closed);
    lua_pushstring(L, weir_area_state_name(weir_area_look(area, why)));
    lua_pushstring(L, why);
    return 2;
}

/* area:path() -> where its file is; "" for private memory */
static int area_path(lua_State *L)
{
    const char *closed;
    const weir_area *area = handle_of(L, check_box(L), &closed);
    if (area == NULL) return wl_refuse(L, closed);
    lua_pushstring(L, weir_area_path(area));
    return 1;
}

/* area:page(path, [accept]) -> http, type, body | nothing if there is no such document */
static int area_page(lua_State *L)
{
    const char *closed;
    weir_area *area = handle_of(L, check_box(L), &closed);
    const char *path = luaL_checkstring(L, 2), *accept = luaL_optstring(L, 3, NULL);
    if (area == NULL) return wl_refuse(L, closed);
    return wl_push_page(L, area, path, accept);
}

/* ---- steering ---------------------------------------------------------------------------------------------------- */

/* area:may_steer() -> true, "" | false, why */
static int area_may_steer(lua_State *L)
{
    const char *closed;
    char why[WEIR_WHY_MAX] = "";
    const weir_area *area = handle_of(L, check_box(L), &closed);
    bool may = area != NULL && weir_area_may_steer(area, why);
    lua_pushboolean(L, may);
    lua_pushstring(L, area == NULL ? closed : why);
    return 2;
}

static const char *text_field(lua_State *L, const char *name)
{
    lua_getfield(L, 2, name);
    if (!lua_isnil(L, -1) && lua_type(L, -1) != LUA_TSTRING)
        luaL_error(L, "%s must be a string, not a %s", name, luaL_typename(L, -1));
    return lua_tostring(L, -1); /* stays on the stack, and so does the text */
}

static double number_field(lua_State *L, const char *name, double most)
{
    lua_getfield(L, 2, name);
    double number = lua_tonumber(L, -1);
    if (!lua_isnil(L, -1) && (lua_type(L, -1) != LUA_TNUMBER || !(number >= 0 && number <= most)))
        luaL_error(L, "%s must be a number from 0 to %f", name, most);
    lua_pop(L, 1);
    return number;
}

static int index_in(const char *const *names, const char *wanted)
{
    int i = 0;
    while (names[i] != NULL && (wanted == NULL || strcmp(names[i], wanted) != 0)) i++;
    return names[i] == NULL ? -1 : i;
}

static weir_breaker_state state_field(lua_State *L)
{
    static const char *const names[] = {"auto", "open", "closed", "disabled", "metrics_only", NULL};
    static const weir_breaker_state states[] = {WEIR_CLOSED, WEIR_FORCED_OPEN, WEIR_FORCED_CLOSED,
                                                WEIR_DISABLED, WEIR_METRICS_ONLY};
    int index = index_in(names, text_field(L, "state"));
    if (index < 0) luaL_error(L, "state must be auto, open, closed, disabled or metrics_only");
    return states[index];
}

/* As `conns` shows it, in hex; 0 for what is no id. */
static uint64_t call_field(lua_State *L)
{
    const char *id = text_field(L, "call");
    char *end = NULL;
    if (id == NULL) luaL_error(L, "call is missing: the id of a call that runs");
    uint64_t number = strtoull(id, &end, 16);
    return *end == '\0' ? number : 0;
}

static void read_order(lua_State *L, weir_order *order)
{
    static const char *const kinds[] = {"pause", "drain", "resume", "resize", "reconnect",
                                        "force", "reset", "kill",   "policy", NULL};
    luaL_checktype(L, 2, LUA_TTABLE);
    int kind = index_in(kinds, text_field(L, "kind"));
    if (kind < 0)
        luaL_error(L, "kind must be pause, drain, resume, resize, reconnect, force, reset, kill or policy");
    *order = (weir_order){.kind = (weir_order_kind)(WEIR_ORDER_PAUSE + kind)};
    order->pool = text_field(L, "pool");
    order->reason = text_field(L, "reason");
    order->max = (uint32_t)number_field(L, "max", 4e9);
    order->lasts_ns = (uint64_t)ceil(number_field(L, "seconds", 1e9) * 1e9); /* 0 would be for ever */
    if (order->kind == WEIR_ORDER_FORCE) order->state = state_field(L);
    if (order->kind == WEIR_ORDER_KILL) order->call = call_field(L);
    if (order->kind != WEIR_ORDER_POLICY) return;
    order->text = text_field(L, "text");
    if (order->text == NULL) luaL_error(L, "text is missing: the policy's");
    order->length = lua_rawlen(L, -1);
}

/* area:order{ kind =, pool =, max =, state =, seconds =, call =, text =, reason = } -> ticket | nil, why */
static int area_order(lua_State *L)
{
    const char *closed;
    char why[WEIR_WHY_MAX] = "";
    weir_order order;
    uint64_t ticket = 0;
    const struct area_box *box = check_box(L);
    weir_area *area = handle_of(L, box, &closed);
    read_order(L, &order);
    if (area == NULL) return wl_refuse(L, closed);
    struct wl_engine *engine = box->engine;
    if (engine != NULL && wl_sim_stranger(engine)) return luaL_error(L, WL_STRANGER);
    if (engine != NULL) engine->loop->busy++;
    int code = weir_area_order(area, &order, &ticket, why);
    if (engine != NULL) wl_loop_leave(engine->loop);
    if (code != WEIR_OK) return wl_refuse(L, why);
    lua_pushinteger(L, (lua_Integer)ticket);
    return 1;
}

/* area:progress(ticket) -> { workers =, done =, refused =, why = } | nil, why */
static int area_progress(lua_State *L)
{
    const char *closed;
    weir_order_progress progress;
    weir_area *area = handle_of(L, check_box(L), &closed);
    uint64_t ticket = count_at(L, 2, 0);
    if (area == NULL) return wl_refuse(L, closed);
    weir_area_progress(area, ticket, &progress);
    lua_createtable(L, 0, 4);
    wl_set_count(L, "workers", progress.workers);
    wl_set_count(L, "done", progress.done);
    wl_set_count(L, "refused", progress.refused);
    lua_pushstring(L, progress.why);
    lua_setfield(L, -2, "why");
    return 1;
}

void wl_area_open(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"json", area_json},           {"look", area_look},
        {"path", area_path},           {"page", area_page},
        {"order", area_order},         {"progress", area_progress},
        {"may_steer", area_may_steer}, {"close", area_close},
        {"__gc", area_collect},        {NULL, NULL},
    };
    luaL_newmetatable(L, WL_AREA_TYPE);
    luaL_setfuncs(L, methods, 0);
    lua_pushvalue(L, -1);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
}
