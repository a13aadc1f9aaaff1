/* Arrays: '{1,2}', '{{a,b},{c,d}}', '{"with \"quotes\"",NULL}', '[0:2]={1,2,3}'. Elements become values as
 * their type says, NULL becomes weir.null (a hole would end the table), indices start at 1 whatever the
 * bounds were. */
#include "lua_weir.h"

#include <string.h>
#include <strings.h>

enum { DEPTH_MAX = 8 }; /* the server's own limit is 6 dimensions */

struct array_reader {
    lua_State *L;
    const struct wl_decoder *decoder;
    uint32_t element;
    const char *at, *end;
};

uint32_t wl_array_element(uint32_t type)
{
    static const struct {
        uint32_t array, element;
    } known[] = {
        {1000, 16},   {1001, 17}, {1005, 21},   {1007, 23}, {1016, 20}, {1021, 700}, {1022, 701},
        {1231, 1700}, {199, 114}, {3807, 3802}, {1009, 25}, {1015, 25}, {1002, 25},  {1014, 25},
        {1003, 25},   {1028, 25}, {2951, 25},   {1041, 25}, {651, 25},  {1040, 25},  {775, 25},
        {1182, 25},   {1183, 25}, {1270, 25},   {1115, 25}, {1185, 25}, {1187, 25},  {791, 25},
        {143, 25},    {2287, 25}, {1561, 25},   {1563, 25}, {1263, 25}, {3643, 25},  {3645, 25},
        {3905, 25},   {3907, 25}, {3909, 25},   {3911, 25}, {3913, 25}, {3927, 25},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (known[i].array == type) return known[i].element;
    }
    return 0;
}

/* Between quotes. Without a backslash the element is where it stands; else it is unescaped into a string. */
static bool push_quoted(struct array_reader *r)
{
    const char *start = ++r->at;
    while (r->at < r->end && *r->at != '"' && *r->at != '\\') r->at++;
    if (r->at == r->end) return false;
    if (*r->at == '"') {
        wl_push_value(r->L, r->decoder, r->element, start, (size_t)(r->at++ - start));
        return true;
    }
    luaL_Buffer buffer;
    luaL_buffinit(r->L, &buffer);
    luaL_addlstring(&buffer, start, (size_t)(r->at - start));
    for (; r->at < r->end && *r->at != '"'; r->at++) {
        if (*r->at == '\\' && r->at + 1 < r->end) r->at++;
        luaL_addchar(&buffer, *r->at);
    }
    luaL_pushresult(&buffer);
    if (r->at == r->end) return false;
    r->at++;
    size_t length = 0;
    const char *text = lua_tolstring(r->L, -1, &length);
    wl_push_value(r->L, r->decoder, r->element, text, length);
    lua_remove(r->L, -2);
    return true;
}

static bool push_bare(struct array_reader *r)
{
    const char *start = r->at;
    while (r->at < r->end && *r->at != ',' && *r->at != '}') r->at++;
    size_t length = (size_t)(r->at - start);
    if (length == 0 || r->at == r->end) return false;
    if (length == 4 && strncasecmp(start, "NULL", 4) == 0)
        wl_push_null(r->L, r->decoder);
    else
        wl_push_value(r->L, r->decoder, r->element, start, length);
    return true;
}

static bool push_braced(struct array_reader *r, int depth)
{
    lua_State *L = r->L;
    int count = 0;
    if (depth > DEPTH_MAX || r->at == r->end || *r->at != '{') return false;
    luaL_checkstack(L, 12, "array");
    lua_newtable(L);
    r->at++;
    if (r->at < r->end && *r->at == '}') {
        r->at++;
        return true;
    }
    while (r->at < r->end) {
        bool good = *r->at == '{' ? push_braced(r, depth + 1) : *r->at == '"' ? push_quoted(r) : push_bare(r);
        if (!good || r->at == r->end) return false;
        lua_rawseti(L, -2, ++count);
        char next = *r->at++;
        if (next == '}') return true;
        if (next != ',') return false;
    }
    return false;
}

void wl_push_array(lua_State *L, const struct wl_decoder *decoder, uint32_t element, const char *text,
                   size_t length)
{
    int top = lua_gettop(L);
    struct array_reader reader = {L, decoder, element, text, text + length};
    if (length > 0 && text[0] == '[') {
        const char *equals = memchr(text, '=', length);
        if (equals != NULL) reader.at = equals + 1;
    }
    if (push_braced(&reader, 1) && reader.at == reader.end) return;
    lua_settop(L, top); /* not a form known here: better the text than half an array */
    lua_pushlstring(L, text, length);
}
