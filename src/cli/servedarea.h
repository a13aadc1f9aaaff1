/* Another process's area, for `weir serve --area`: followed from file to file. */
#ifndef SERVEDAREA_H
#define SERVEDAREA_H

#include "weir/area.h"

#include <lua.h>

/* attach(path) -> area, whether there is a file or not. Its look() takes what is at the path now and returns nil if that
 * is an area on which somebody works, else a sentence. */
int cli_served_attach(lua_State *L);

/* What the value at index shows now: NULL if there is nothing, or it is no such area. */
weir_area *cli_served_area(lua_State *L, int index);

#endif
