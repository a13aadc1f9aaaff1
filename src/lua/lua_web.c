/* What an HTTP server shows of an engine, for one that is written in Lua. */
#include "lua_weir.h"

#include "weir/web.h"

int wl_push_page(lua_State *L, weir_area *area, const char *path, const char *accept)
{
    weir_page page;
    if (!weir_page_get(area, path, accept, &page)) return 0;
    lua_pushinteger(L, (lua_Integer)page.http);
    lua_pushstring(L, page.type);
    lua_pushlstring(L, page.body, page.length);
    return 3;
}
