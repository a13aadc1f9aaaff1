/* Descriptors that Lua waits for. Each direction asked for is reported once: the loop must not come back again and
 * again for what no task has looked at yet. As with calls, C only marks; lua/weir/poll.lua asks afterwards. */
#include "lua_weir.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

enum { FD_MAX = 1 << 20 }; /* Linux's own default for the most a process may have */

struct wl_poll { /* one for each descriptor number up to the highest ever waited for */
    unsigned wanted, ready;
    bool listed; /* among those that polled() hands out, through next */
    int next;
};

static void on_ready(void *ctx, int fd, unsigned events)
{
    struct wl_loop *loop = ctx;
    struct wl_poll *poll = &loop->polls[fd];
    poll->ready |= events & poll->wanted;
    poll->wanted &= ~events;
    /* Cannot fail: what is watched can be watched for less. */
    (void)loop->host.watch(loop->host.ctx, fd, poll->wanted, on_ready, loop);
    wl_loop_wake(loop);
    if (poll->listed) return;
    poll->listed = true;
    poll->next = loop->polled;
    loop->polled = fd;
}

static bool reserve(struct wl_loop *loop, int fd)
{
    int room = loop->poll_room > 0 ? loop->poll_room : 64;
    if (fd < loop->poll_room) return true;
    while (room <= fd) room *= 2;
    struct wl_poll *grown = realloc(loop->polls, (size_t)room * sizeof *grown);
    if (grown == NULL) return false;
    memset(grown + loop->poll_room, 0, (size_t)(room - loop->poll_room) * sizeof *grown);
    loop->polls = grown;
    loop->poll_room = room;
    return true;
}

/* watch(fd, "", "r", "w" or "rw") -> true, or nil and a sentence. Replaces what was asked for; polled() gives each
 * direction back once. "" forgets, and what was ready and not yet asked for too. */
static int poll_watch(lua_State *L)
{
    static const char *const names[] = {"", "r", "w", "rw", NULL};
    struct wl_loop *loop = wl_loop_of(L);
    lua_Integer fd = luaL_checkinteger(L, 1);
    unsigned wanted = (unsigned)luaL_checkoption(L, 2, NULL, names);
    int code = WEIR_EINVAL;
    if (loop->sim != NULL) {
        lua_pushnil(L);
        lua_pushliteral(L, "a simulation has no descriptors");
        return 2;
    }
    if (fd >= 0 && fd < FD_MAX) {
        if (!reserve(loop, (int)fd)) return luaL_error(L, "not enough memory");
        code = loop->host.watch(loop->host.ctx, (int)fd, wanted, on_ready, loop);
        loop->polls[fd].wanted = code == WEIR_OK ? wanted : 0;
        loop->polls[fd].ready = 0;
    }
    if (code != WEIR_OK) {
        lua_pushnil(L);
        lua_pushfstring(L, "descriptor %d cannot be waited for: it is closed, a file, or Weir's own",
                        (int)fd);
        return 2;
    }
    lua_pushboolean(L, 1);
    return 1;
}

/* polled() -> a descriptor and what it has become ready for, "r", "w" or "rw"; or nil, and always nil in a simulation:
 * who waits for it belongs to the real world, which stands still. */
static int poll_polled(lua_State *L)
{
    static const char *const names[] = {"", "r", "w", "rw"};
    struct wl_loop *loop = wl_loop_of(L);
    while (loop->polled >= 0 && loop->sim == NULL) {
        struct wl_poll *poll = &loop->polls[loop->polled];
        int fd = loop->polled;
        unsigned ready = poll->ready;
        poll->ready = 0;
        poll->listed = false;
        loop->polled = poll->next;
        if (ready == 0) continue; /* forgotten meanwhile */
        lua_pushinteger(L, fd);
        lua_pushstring(L, names[ready]);
        return 2;
    }
    return 0;
}

/* unshare(fd): the children of this process do not get the descriptor. A connection is over only when the last who
 * holds it has closed it. */
static int poll_unshare(lua_State *L)
{
    (void)fcntl((int)luaL_checkinteger(L, 1), F_SETFD, FD_CLOEXEC); /* fails on a closed descriptor only */
    return 0;
}

const luaL_Reg *wl_poll_functions(void)
{
    static const luaL_Reg functions[] = {{"watch", poll_watch},
                                         {"polled", poll_polled},
                                         {"unshare", poll_unshare},
                                         {NULL, NULL}};
    return functions;
}
