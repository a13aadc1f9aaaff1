/* Listeners. C keeps what has come, in order and within a bound; Lua takes it. As with calls, C only marks that there is
 * something: the listener goes on the one list of its world's news (wl_news.heard) and the loop is woken once. */
#include "lua_weir.h"

#include "weir/listen.h"

#include <stdlib.h>
#include <string.h>

#define LISTEN_TYPE "weir.listener"

enum { QUEUE_MOST = 1000000 };

struct note { /* one that has not been taken */
    struct note *next;
    uint32_t pid;
    bool gap; /* something was missed before it */
    size_t channel_length, payload_length;
    char text[]; /* channel, payload */
};

struct wl_listener {
    weir_listener *handle; /* NULL once closed */
    struct wl_engine *engine;
    weir_lua_gate *bond; /* tells when what it was opened in has ended; NULL: the host does not know */
    struct note *first, *last;
    size_t count, most;
    bool gap; /* something was missed after the last one */
    bool over;
    bool known; /* error or confirmation: it is known what became of opening it */
    bool lost;  /* error tells why */
    weir_error error;
    bool listed;
    struct wl_listener *next;
};

/* ---- what comes --------------------------------------------------------------------------------------------- */

static void make_news(struct wl_listener *listener)
{
    struct wl_news *news = wl_news_of(listener->engine);
    if (listener->listed) return;
    listener->listed = true;
    listener->next = news->heard;
    news->heard = listener;
    wl_loop_wake(listener->engine->loop);
}

static void forget_news(struct wl_listener *listener)
{
    struct wl_listener **at = &wl_news_of(listener->engine)->heard;
    if (!listener->listed) return;
    while (*at != listener) at = &(*at)->next;
    *at = listener->next;
    listener->listed = false;
}

/* What finds no room is missed, and told as such where it would have stood. */
static void keep(struct wl_listener *listener, const weir_listen_event *event)
{
    size_t channel = strlen(event->channel), payload = strlen(event->payload);
    struct note *note = listener->count < listener->most ? malloc(sizeof *note + channel + payload) : NULL;
    if (note == NULL) {
        listener->gap = true;
        return;
    }
    *note = (struct note){.pid = event->pid,
                          .gap = listener->gap,
                          .channel_length = channel,
                          .payload_length = payload};
    memcpy(note->text, event->channel, channel);
    memcpy(note->text + channel, event->payload, payload);
    listener->gap = false;
    if (listener->last != NULL)
        listener->last->next = note;
    else
        listener->first = note;
    listener->last = note;
    listener->count++;
}

static void on_event(void *user, weir_listener *handle, const weir_listen_event *event)
{
    struct wl_listener *listener = user;
    (void)handle;
    switch (event->kind) {
    case WEIR_LISTENING:
        listener->known = true;
        listener->lost = false;
        listener->gap = listener->gap || event->gap;
        break;
    case WEIR_NOTIFICATION:
        keep(listener, event);
        break;
    case WEIR_LISTEN_LOST:
        listener->known = listener->lost = true;
        listener->error = *event->error;
        break;
    case WEIR_LISTEN_OVER:
        listener->over = true;
        break;
    }
    make_news(listener);
}

/* ---- the life of a listener --------------------------------------------------------------------------------- */

static struct note *take_first(struct wl_listener *listener)
{
    struct note *note = listener->first;
    if (note == NULL) return NULL;
    listener->first = note->next;
    if (listener->first == NULL) listener->last = NULL;
    listener->count--;
    return note;
}

/* The request has gone that opened it. Whoever else waits for it is told; its memory is its userdata's, which only Lua's
 * collector frees, and until then a connection would be held for nobody. */
static void on_deserted(void *user)
{
    struct wl_listener *listener = user;
    weir_listener_free(listener->handle);
    listener->handle = NULL;
    listener->over = true;
    make_news(listener);
}

static void bind_to_request(lua_State *L, struct wl_listener *listener)
{
    const weir_lua_host *host = &listener->engine->loop->host;
    if (wl_has_gates(listener->engine->loop))
        listener->bond = host->gate(host->ctx, L, on_deserted, listener);
}

/* May run inside a policy: weir_listener_free only marks. What it arms then, nobody need be told of but the host, and it
 * is. */
static int listen_close(lua_State *L)
{
    struct wl_listener **box = luaL_checkudata(L, 1, LISTEN_TYPE);
    struct wl_listener *listener = *box;
    *box = NULL;
    if (listener == NULL) return 0;
    if (listener->bond != NULL) listener->engine->loop->host.drop(listener->bond);
    weir_listener_free(listener->handle);
    forget_news(listener);
    for (struct note *note; (note = take_first(listener)) != NULL;) free(note);
    wl_engine_release(listener->engine);
    free(listener);
    return 0;
}

static int open_channels(lua_State *L, struct wl_listener *listener, weir_listen_options *options)
{
    const char *channels[WEIR_CHANNELS_MAX];
    char why[WEIR_WHY_MAX] = "";
    lua_Integer count = (lua_Integer)lua_rawlen(L, 4);
    if (count > WEIR_CHANNELS_MAX) return wl_refuse(L, "a listener has at most 256 channels");
    luaL_checkstack(L, (int)count, NULL);
    for (int i = 0; i < (int)count; i++) {
        lua_rawgeti(L, 4, i + 1);
        channels[i] = luaL_checkstring(L, -1); /* kept by the table */
        lua_pop(L, 1);
    }
    options->channels = channels;
    options->channel_count = (size_t)count;
    int code = weir_listener_open(&listener->handle, listener->engine->handle, options, why);
    if (code == WEIR_EINVAL) return wl_refuse(L, why);
    if (code != WEIR_OK) {
        lua_pushnil(L);
        lua_pushnil(L);
        lua_pushstring(L, why);
        return 3;
    }
    bind_to_request(L, listener);
    lua_pushlightuserdata(L, listener);
    return 2;
}

/* engine:listen(client, backend or nil, channels, most) -> listener, key | nil, a sentence: misuse | nil, nil, a sentence:
 * what cannot be now. */
int wl_listen_new(lua_State *L)
{
    struct wl_engine *engine = wl_engine_enterable(L, 1);
    weir_listen_options options = {.client = luaL_checkstring(L, 2),
                                   .backend = luaL_optstring(L, 3, NULL),
                                   .notify = on_event};
    luaL_checktype(L, 4, LUA_TTABLE);
    lua_Integer most = luaL_checkinteger(L, 5);
    lua_settop(L, 5);
    if (engine == NULL) return wl_refuse(L, "the engine is closed");
    if (engine->sim != NULL) return wl_refuse(L, "listen: in a simulation nobody sends notifications");
    if (most < 1 || most > QUEUE_MOST)
        return wl_refuse(L, "listen: queue must be a whole number, 1 .. 1000000");
    struct wl_listener **box = lua_newuserdatauv(L, sizeof *box, 0);
    *box = NULL;
    luaL_setmetatable(L, LISTEN_TYPE);
    struct wl_listener *listener = *box = calloc(1, sizeof *listener);
    if (listener == NULL) return luaL_error(L, "not enough memory");
    listener->engine = engine;
    engine->references++;
    listener->most = (size_t)most;
    options.user = listener;
    return open_channels(L, listener, &options);
}

static struct wl_listener *check_listener(lua_State *L)
{
    struct wl_listener **box = luaL_checkudata(L, 1, LISTEN_TYPE);
    return *box;
}

/* ---- taking --------------------------------------------------------------------------------------------------- */

static int push_gap(lua_State *L, bool *gap)
{
    *gap = false;
    lua_pushboolean(L, 0);
    lua_pushliteral(L, "gap");
    return 2;
}

/* take() -> channel, payload, pid | false, "gap" (something was missed here; take on) | false, "closed" | nothing yet */
static int listen_take(lua_State *L)
{
    struct wl_listener *listener = check_listener(L);
    struct note *first = listener == NULL ? NULL : listener->first;
    if (first != NULL && first->gap) return push_gap(L, &first->gap);
    if (first != NULL) {
        lua_pushlstring(L, first->text, first->channel_length);
        lua_pushlstring(L, first->text + first->channel_length, first->payload_length);
        lua_pushinteger(L, (lua_Integer)first->pid);
        free(take_first(listener));
        return 3;
    }
    if (listener == NULL || listener->over) {
        lua_pushboolean(L, 0);
        lua_pushliteral(L, "closed");
        return 2;
    }
    if (listener->gap) return push_gap(L, &listener->gap);
    return 0;
}

/* state() -> "opening", "listening", "asking", "closed", or "lost" and the failure */
static int listen_state(lua_State *L)
{
    const struct wl_listener *listener = check_listener(L);
    if (listener == NULL || listener->over) {
        lua_pushliteral(L, "closed");
    } else if (listener->lost) {
        lua_pushliteral(L, "lost");
        wl_push_error(L, &listener->error);
        return 2;
    } else if (!listener->known) {
        lua_pushliteral(L, "opening");
    } else {
        lua_pushstring(L, weir_listener_is_up(listener->handle) ? "listening" : "asking");
    }
    return 1;
}

static int change(lua_State *L, int (*how)(weir_listener *listener, const char *channel, char *why))
{
    char why[WEIR_WHY_MAX] = "";
    struct wl_listener *listener = check_listener(L);
    const char *channel = luaL_checkstring(L, 2);
    if (listener == NULL || listener->handle == NULL) return wl_refuse(L, "the listener is closed");
    if (listener->engine->loop->busy > 0) return luaL_error(L, "a policy must not wait or call the database");
    if (how(listener->handle, channel, why) != WEIR_OK) return wl_refuse(L, why);
    lua_pushboolean(L, 1);
    return 1;
}

static int listen_add(lua_State *L)
{
    return change(L, weir_listener_add);
}

static int listen_remove(lua_State *L)
{
    return change(L, weir_listener_remove);
}

int wl_listen_heard(lua_State *L)
{
    struct wl_loop *loop = wl_loop_of(L);
    struct wl_listener *listener = loop->news.heard;
    if (listener == NULL) return 0;
    loop->news.heard = listener->next;
    listener->listed = false;
    lua_pushlightuserdata(L, listener);
    return 1;
}

void wl_listen_open(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"take", listen_take},   {"state", listen_state}, {"add", listen_add}, {"remove", listen_remove},
        {"close", listen_close}, {"__gc", listen_close},  {NULL, NULL}};
    luaL_newmetatable(L, LISTEN_TYPE);
    luaL_setfuncs(L, methods, 0);
    lua_pushvalue(L, -1);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
}
