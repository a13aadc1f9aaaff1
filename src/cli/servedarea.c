/* Another process's area, see servedarea.h. Whoever restarts an application may leave its old area behind, remove it, or put
 * another in its place; what was there is shown until something better is. */
#include "servedarea.h"

#include <lauxlib.h>

struct served {
    weir_area *area; /* NULL: none was found yet, or it is damaged */
};

static const char served_type[] = "weir.cli.served";

static void leave(struct served *served)
{
    weir_area_detach(served->area);
    served->area = NULL;
}

/* Takes what is at the path now; what was there before stays if that is no area. */
static bool take(struct served *served, const char *path, char *why)
{
    weir_area *found;
    if (weir_area_attach(&found, path, why) != WEIR_OK) return false;
    leave(served);
    served->area = found;
    return true;
}

/* served:look() -> nil if all is well, else a sentence */
static int look(lua_State *L)
{
    struct served *served = luaL_checkudata(L, 1, served_type);
    char why[WEIR_WHY_MAX] = "";
    lua_getiuservalue(L, 1, 1);
    const char *path = lua_tostring(L, -1);
    weir_area_state state = served->area != NULL ? weir_area_look(served->area, why) : WEIR_AREA_GONE;
    if (state == WEIR_AREA_LIVE) return 0;
    if (state == WEIR_AREA_DAMAGED) leave(served);
    if (state != WEIR_AREA_DESERTED && take(served, path, why)) state = weir_area_look(served->area, why);
    if (state == WEIR_AREA_LIVE) return 0;
    lua_pushstring(L, why);
    return 1;
}

static int close(lua_State *L)
{
    leave(luaL_checkudata(L, 1, served_type));
    return 0;
}

int cli_served_attach(lua_State *L)
{
    static const luaL_Reg methods[] = {{"look", look}, {"close", close}, {"__gc", close}, {NULL, NULL}};
    luaL_checkstring(L, 1);
    struct served *served = lua_newuserdatauv(L, sizeof *served, 1);
    served->area = NULL;
    lua_pushvalue(L, 1);
    lua_setiuservalue(L, -2, 1);
    if (luaL_newmetatable(L, served_type)) {
        luaL_setfuncs(L, methods, 0);
        lua_pushvalue(L, -1);
        lua_setfield(L, -2, "__index");
    }
    lua_setmetatable(L, -2);
    return 1;
}

weir_area *cli_served_area(lua_State *L, int index)
{
    const struct served *served = luaL_testudata(L, index, served_type);
    return served != NULL ? served->area : NULL;
}
