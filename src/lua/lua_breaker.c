/* A breaker for anything a script calls. Its memory lies inside the userdata; events come back as tables,
 * for the Lua face to hand to whoever asked with on(). */
#include "lua_weir.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define WL_BREAKER_TYPE "weir.breaker"
#define WL_PERMIT_TYPE  "weir.permit"

struct wl_breaker {
    weir_breaker *breaker; /* in `room` below, on a cache line of its own */
    lua_State *L;          /* of the method under way, whose stack holds the userdata at 1: for open_for */
    char fault[128];       /* what was wrong with open_for's last answer, "" if nothing */
    unsigned char room[];
};

struct wl_permit {
    weir_permit permit;
    const struct wl_breaker *from; /* only compared, never followed */
    bool settled;
};

void *wl_aligned(void *memory)
{
    return (void *)(((uintptr_t)memory + 63) & ~(uintptr_t)63);
}

uint64_t wl_guard_now(lua_State *L, int index)
{
    if (lua_isnoneornil(L, index)) return wl_loop_now(wl_loop_of(L));
    double seconds = luaL_checknumber(L, index);
    if (!(seconds >= 0 && seconds < 1.8e10)) luaL_error(L, "the clock gave %f seconds", (lua_Number)seconds);
    return (uint64_t)(seconds * 1e9 + 0.5);
}

/* ---- open_for as a function ---------------------------------------------------------------------------- */

/* The duration is on top, or the error message. What is no duration is noted, and the configured one serves.
 */
static uint64_t check_spell(lua_State *L, struct wl_breaker *self, bool raised)
{
    double seconds = !raised && lua_type(L, -1) == LUA_TNUMBER ? lua_tonumber(L, -1) : -1;
    self->fault[0] = '\0';
    if (seconds > 0 && seconds <= 366.0 * 24 * 3600) return (uint64_t)(seconds * 1e9 + 0.5);
    if (raised && lua_type(L, -1) == LUA_TSTRING) {
        (void)snprintf(self->fault, sizeof self->fault, "open_for raised: %.100s", lua_tostring(L, -1));
    } else {
        (void)snprintf(self->fault, sizeof self->fault,
                       "open_for %s a %s; it must return seconds, more than 0",
                       raised ? "raised" : "returned", luaL_typename(L, -1));
    }
    return 0; /* the guard falls back to open_for_ns */
}

static uint64_t ask_open_for(void *ctx, uint32_t k)
{
    struct wl_breaker *self = ctx;
    lua_State *L = self->L;
    if (!lua_checkstack(L, 6)) return 0;
    int top = lua_gettop(L);
    wl_get_anchor(L, 1);
    lua_rawgeti(L, -1, 1);
    lua_pushinteger(L, (lua_Integer)k);
    int status = lua_pcall(L, 1, 1, 0); /* no error may pass through the guard */
    uint64_t spell = check_spell(L, self, status != LUA_OK);
    lua_settop(L, top);
    return spell;
}

/* ---- making -------------------------------------------------------------------------------------------- */

/* core.breaker(options[, now]) -> breaker | nil, why */
int wl_breaker_new(lua_State *L)
{
    char why[WEIR_WHY_MAX] = "";
    weir_breaker_config config;
    struct wl_reader reader = {.L = L};
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 2);
    uint64_t now_ns = wl_guard_now(L, 2);
    weir_breaker_defaults(&config);
    if (!wl_breaker_read(&reader, 1, &config)) return wl_refuse(L, reader.why);

    struct wl_breaker *self = lua_newuserdatauv(L, sizeof *self + weir_breaker_size() + 63, 1);
    *self = (struct wl_breaker){.L = L};
    self->breaker = wl_aligned(self->room);
    lua_createtable(L, 1, 0);
    lua_getfield(L, 1, "open_for");
    if (lua_type(L, -1) == LUA_TFUNCTION) {
        config.open_for = ask_open_for;
        config.open_for_ctx = self;
    }
    lua_rawseti(L, -2, 1);
    wl_set_anchor(L, -2);
    lua_replace(L, 1); /* where ask_open_for looks, should init ask: a breaker may start open */
    lua_settop(L, 1);
    if (weir_breaker_init(self->breaker, &config, now_ns, why) != WEIR_OK) return wl_refuse(L, why);
    luaL_setmetatable(L, WL_BREAKER_TYPE);
    return 1;
}

static struct wl_breaker *check_breaker(lua_State *L)
{
    struct wl_breaker *self = luaL_checkudata(L, 1, WL_BREAKER_TYPE);
    self->L = L;
    return self;
}

/* ---- evidence ------------------------------------------------------------------------------------------ */

static void set_text(lua_State *L, const char *name, const char *value)
{
    lua_pushstring(L, value);
    lua_setfield(L, -2, name);
}

static const char *rule_name(weir_rule rule)
{
    static const char *const names[] = {
        "none",  "failure_rate",     "slow_rate",        "consecutive",    "open_ended",
        "probe", "half_open_passed", "half_open_failed", "half_open_wait", "operator",
        "reset", "force_ended"};
    return (unsigned)rule < sizeof names / sizeof *names ? names[rule] : "?";
}

static void push_evidence(lua_State *L, const weir_evidence *evidence)
{
    char text[WEIR_WHY_MAX];
    lua_createtable(L, 0, 12);
    set_text(L, "from", weir_breaker_state_name(evidence->from));
    set_text(L, "to", weir_breaker_state_name(evidence->to));
    set_text(L, "rule", rule_name(evidence->rule));
    set_text(L, "text", weir_evidence_text(evidence, text, sizeof text));
    wl_set_count(L, "generation", evidence->generation);
    wl_set_count(L, "calls", evidence->calls);
    wl_set_count(L, "failures", evidence->failures);
    wl_set_count(L, "slow", evidence->slow);
    wl_set_number(L, "at", (double)evidence->at_ns / 1e9);
    if (evidence->threshold > 0) {
        wl_set_number(L, "rate", evidence->rate);
        wl_set_number(L, "threshold", evidence->threshold);
    }
    lua_createtable(L, 4, 0);
    for (int i = 0; i < 4 && evidence->codes[i][0] != '\0'; i++) {
        lua_pushstring(L, evidence->codes[i]);
        lua_rawseti(L, -2, i + 1);
    }
    lua_setfield(L, -2, "codes");
}

/* The event of a method that moved the breaker, or nothing. */
static int push_event(lua_State *L, struct wl_breaker *self, bool moved, const weir_evidence *evidence)
{
    if (!moved) return 0;
    push_evidence(L, evidence);
    if (self->fault[0] != '\0') set_text(L, "fault", self->fault);
    self->fault[0] = '\0';
    return 1;
}

/* ---- methods ------------------------------------------------------------------------------------------- */

/* admit([now]) -> permit or false, and the event if time had moved the breaker. */
static int breaker_admit(lua_State *L)
{
    weir_evidence event;
    struct wl_breaker *self = check_breaker(L);
    uint64_t now_ns = wl_guard_now(L, 2);
    struct wl_permit *permit = lua_newuserdatauv(L, sizeof *permit, 0);
    *permit = (struct wl_permit){.from = self};
    luaL_setmetatable(L, WL_PERMIT_TYPE);
    bool moved = weir_breaker_tick(self->breaker, now_ns, &event);
    if (!weir_breaker_admit(self->breaker, 0, now_ns, &permit->permit)) {
        lua_pop(L, 1);
        lua_pushboolean(L, 0);
    }
    return 1 + push_event(L, self, moved, &event);
}

/* settle(permit, verdict, elapsed[, code[, now]]) -> true, event | nil, why */
static int breaker_settle(lua_State *L)
{
    static const char *const verdicts[] = {"success", "failure", "neutral"};
    weir_evidence event;
    struct wl_breaker *self = check_breaker(L);
    struct wl_permit *permit = luaL_testudata(L, 2, WL_PERMIT_TYPE);
    const char *said = lua_type(L, 3) == LUA_TSTRING ? lua_tostring(L, 3) : "";
    double elapsed = lua_type(L, 4) == LUA_TNUMBER ? lua_tonumber(L, 4) : -1;
    int verdict = 0;
    while (verdict < 3 && strcmp(said, verdicts[verdict]) != 0) verdict++;
    if (permit == NULL || permit->from != self)
        return wl_refuse(L, "the permit is not one this breaker gave");
    if (permit->settled) return wl_refuse(L, "the permit has been settled before");
    if (verdict == 3) return wl_refuse(L, "the verdict must be 'success', 'failure' or 'neutral'");
    if (!(elapsed >= 0 && elapsed < 1e9))
        return wl_refuse(L, "elapsed must be a number of seconds, 0 or more");
    uint64_t now_ns = wl_guard_now(L, 6);
    permit->settled = true;
    bool moved =
        weir_breaker_settle(self->breaker, permit->permit, (weir_verdict)verdict,
                            (uint64_t)(elapsed * 1e9 + 0.5), luaL_optstring(L, 5, NULL), now_ns, &event);
    lua_pushboolean(L, 1);
    return 1 + push_event(L, self, moved, &event);
}

static int breaker_tick(lua_State *L)
{
    weir_evidence event;
    struct wl_breaker *self = check_breaker(L);
    bool moved = weir_breaker_tick(self->breaker, wl_guard_now(L, 2), &event);
    return push_event(L, self, moved, &event);
}

static int breaker_probe_passed(lua_State *L)
{
    weir_evidence event;
    struct wl_breaker *self = check_breaker(L);
    bool moved = weir_breaker_probe_passed(self->breaker, wl_guard_now(L, 2), &event);
    return push_event(L, self, moved, &event);
}

/* force(state or nil[, now]) -> true, event | nil, why */
static int breaker_force(lua_State *L)
{
    static const struct {
        const char *name;
        weir_breaker_state state;
    } known[] = {
        {"auto", WEIR_CLOSED},       {"open", WEIR_FORCED_OPEN},          {"closed", WEIR_FORCED_CLOSED},
        {"disabled", WEIR_DISABLED}, {"metrics_only", WEIR_METRICS_ONLY},
    };
    weir_evidence event;
    struct wl_breaker *self = check_breaker(L);
    const char *wanted = lua_isnoneornil(L, 2)           ? "auto"
                         : lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2)
                                                         : "";
    uint64_t now_ns = wl_guard_now(L, 3);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strcmp(wanted, known[i].name) != 0) continue;
        bool moved = weir_breaker_force(self->breaker, known[i].state, now_ns, &event);
        lua_pushboolean(L, 1);
        return 1 + push_event(L, self, moved, &event);
    }
    return wl_refuse(L,
                     "the state must be 'open', 'closed', 'disabled', 'metrics_only', or nil to end forcing");
}

static int breaker_reset(lua_State *L)
{
    struct wl_breaker *self = check_breaker(L);
    weir_breaker_reset(self->breaker, wl_guard_now(L, 2));
    return 0;
}

static int breaker_state(lua_State *L)
{
    struct wl_breaker *self = check_breaker(L);
    lua_pushstring(L, weir_breaker_state_name(weir_breaker_state_at(self->breaker, wl_guard_now(L, 2))));
    return 1;
}

static int breaker_snapshot(lua_State *L)
{
    weir_breaker_snapshot now;
    struct wl_breaker *self = check_breaker(L);
    weir_breaker_snapshot_at(self->breaker, wl_guard_now(L, 2), &now);
    lua_createtable(L, 0, 12);
    set_text(L, "state", weir_breaker_state_name(now.state));
    wl_set_count(L, "calls", now.calls);
    wl_set_count(L, "failures", now.failures);
    wl_set_count(L, "slow", now.slow);
    if (now.failure_rate >= 0) wl_set_number(L, "failure_rate", now.failure_rate);
    if (now.slow_rate >= 0) wl_set_number(L, "slow_rate", now.slow_rate);
    wl_set_count(L, "refused", now.refused);
    wl_set_count(L, "opened_count", now.opened_count);
    wl_set_count(L, "generation", now.generation);
    if (now.retry_after_ns != UINT64_MAX) wl_set_number(L, "retry_after", (double)now.retry_after_ns / 1e9);
    if (now.evidence.rule != WEIR_RULE_NONE) {
        push_evidence(L, &now.evidence);
        lua_setfield(L, -2, "evidence");
    }
    return 1;
}

void wl_breaker_open(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"admit", breaker_admit},
        {"settle", breaker_settle},
        {"tick", breaker_tick},
        {"probe_passed", breaker_probe_passed},
        {"force", breaker_force},
        {"reset", breaker_reset},
        {"state", breaker_state},
        {"snapshot", breaker_snapshot},
        {NULL, NULL},
    };
    luaL_newmetatable(L, WL_PERMIT_TYPE);
    luaL_newmetatable(L, WL_BREAKER_TYPE);
    luaL_setfuncs(L, methods, 0);
    lua_pushvalue(L, -1);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 2);
}
