/* Results as tables, in the shape a pgmoon user expects; and errors.
 *
 *   rows                             { {id = 1}, {id = 2} }; names twice: the last column wins
 *   INSERT UPDATE DELETE MERGE       { affected_rows = n }, with RETURNING the rows too
 *   COPY, CREATE TABLE AS, ...       { affected_rows = n }
 *   everything else                  true */
#include "lua_weir.h"

#include <string.h>

static const char null_key = 0, json_key = 0, parameter_key = 0, makers_key = 0, maker_key = 0;

/* core.setup(null, decode, parameter, makers, maker): what C needs from the Lua side. */
int wl_values_setup(lua_State *L)
{
    luaL_checkany(L, 1);
    luaL_checktype(L, 2, LUA_TFUNCTION);
    luaL_checktype(L, 3, LUA_TTABLE);
    luaL_checktype(L, 4, LUA_TTABLE);
    luaL_checktype(L, 5, LUA_TFUNCTION);
    lua_settop(L, 5);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &maker_key);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &makers_key);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &parameter_key);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &json_key);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &null_key);
    return 0;
}

bool wl_is_null(lua_State *L, int index)
{
    index = lua_absindex(L, index);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &null_key);
    bool is = lua_rawequal(L, index, -1) != 0;
    lua_pop(L, 1);
    return is;
}

bool wl_is_parameter(lua_State *L, int index)
{
    if (!lua_getmetatable(L, index)) return false;
    lua_rawgetp(L, LUA_REGISTRYINDEX, &parameter_key);
    bool is = lua_rawequal(L, -1, -2) != 0;
    lua_pop(L, 2);
    return is;
}

/* Two places on the stack for what few results need; they are filled when one does. */
void wl_decoder_begin(lua_State *L, struct wl_decoder *decoder, bool nulls)
{
    luaL_checkstack(L, 8, "results");
    lua_pushnil(L);
    lua_pushnil(L);
    decoder->json = lua_gettop(L);
    decoder->null = decoder->json - 1;
    decoder->nulls = nulls;
    decoder->native = 0;
}

static void push_kept(lua_State *L, int place, const void *key)
{
    if (lua_isnil(L, place)) {
        lua_rawgetp(L, LUA_REGISTRYINDEX, key);
        lua_replace(L, place);
    }
    lua_pushvalue(L, place);
}

void wl_push_null(lua_State *L, const struct wl_decoder *decoder)
{
    push_kept(L, decoder->null, &null_key);
}

void wl_push_json_reader(lua_State *L, const struct wl_decoder *decoder)
{
    push_kept(L, decoder->json, &json_key);
}

/* core.decode(oid, text) -> value; what tests of the types call. */
int wl_values_decode(lua_State *L)
{
    struct wl_decoder decoder;
    size_t length = 0;
    uint32_t type = (uint32_t)luaL_checkinteger(L, 1);
    const char *text = luaL_checklstring(L, 2, &length);
    wl_decoder_begin(L, &decoder, false);
    wl_push_value(L, &decoder, type, text, length);
    return 1;
}

static bool changes_rows(const char *tag)
{
    if (tag[0] == 'S') return false; /* most are SELECT */
    static const char *const verbs[] = {"INSERT", "UPDATE", "DELETE", "MERGE"};
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++) {
        if (strncmp(tag, verbs[i], strlen(verbs[i])) == 0) return true;
    }
    return false;
}

static bool counts_rows(const char *tag)
{
    static const char *const verbs[] = {"SELECT", "COPY", "MOVE", "FETCH"};
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++) {
        if (strncmp(tag, verbs[i], strlen(verbs[i])) == 0) return true;
    }
    return changes_rows(tag);
}

enum { AT_ONCE = 64, OID_TEXT = 25 };

struct row_reader {
    const struct wl_decoder *decoder;
    const weir_result *result;
    size_t columns;
    uint32_t types[AT_ONCE]; /* wl_value_type of the first columns; asked for once, not once per row */
};

/* The type a column is decoded as: text, if the caller wants to decode its real one himself. */
static uint32_t find_type(lua_State *L, const struct row_reader *reader, size_t column)
{
    uint32_t type = weir_result_type(reader->result, column);
    if (reader->decoder->native == 0) return wl_value_type(type);
    lua_pushinteger(L, (lua_Integer)type);
    lua_rawget(L, reader->decoder->native);
    bool native = lua_toboolean(L, -1) != 0;
    lua_pop(L, 1);
    return wl_value_type(native ? type : OID_TEXT);
}

static void push_value(lua_State *L, const struct wl_decoder *decoder, uint32_t type, const char *text,
                       size_t length)
{
    if (text != NULL)
        wl_push_value(L, decoder, type, text, length);
    else if (decoder->nulls)
        wl_push_null(L, decoder);
    else
        lua_pushnil(L); /* of two columns of one name the last wins, also with NULL */
}

/* The function that makes a row of these columns; see lua/weir/rows.lua. */
static void push_maker(lua_State *L, const struct row_reader *reader)
{
    luaL_Buffer names;
    luaL_buffinit(L, &names);
    for (size_t column = 0; column < reader->columns; column++) {
        const char *name = weir_result_name(reader->result, column);
        luaL_addlstring(&names, name, strlen(name) + 1);
    }
    luaL_pushresult(&names);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &makers_key);
    lua_pushvalue(L, -2);
    lua_rawget(L, -2);
    if (lua_isnil(L, -1)) {
        lua_rawgetp(L, LUA_REGISTRYINDEX, &maker_key);
        lua_pushvalue(L, -4);
        lua_call(L, 1, 1);
        lua_replace(L, -2);
    }
    lua_replace(L, -3);
    lua_pop(L, 1);
}

/* The maker is at the top, and stays there. */
static void push_row(lua_State *L, const struct row_reader *reader, size_t row)
{
    const char *values[AT_ONCE];
    size_t lengths[AT_ONCE];
    lua_pushvalue(L, -1);
    for (size_t column = 0; column < reader->columns; column++) {
        size_t at = column % AT_ONCE;
        if (at == 0) weir_result_values(reader->result, row, column, AT_ONCE, values, lengths);
        uint32_t type = column < AT_ONCE ? reader->types[column] : find_type(L, reader, column);
        push_value(L, reader->decoder, type, values[at], lengths[at]);
    }
    lua_call(L, (int)reader->columns, 1);
}

static void push_rows(lua_State *L, const struct wl_decoder *decoder, const weir_result *result)
{
    struct row_reader reader;
    reader.decoder = decoder;
    reader.result = result;
    reader.columns = weir_result_columns(result);
    size_t rows = weir_result_rows(result);
    luaL_checkstack(L, (int)reader.columns + 16, "columns");
    for (size_t column = 0; column < reader.columns && column < AT_ONCE; column++)
        reader.types[column] = find_type(L, &reader, column);
    lua_createtable(L, (int)rows, 0);
    push_maker(L, &reader);
    for (size_t row = 0; row < rows; row++) {
        push_row(L, &reader, row);
        lua_rawseti(L, -3, (int)row + 1);
    }
    lua_pop(L, 1);
}

/* A list of the notices, or nil if there are none. */
static void push_notices(lua_State *L, const weir_result *result)
{
    size_t count = weir_result_notice_count(result);
    if (count == 0) {
        lua_pushnil(L);
        return;
    }
    lua_createtable(L, (int)count, 0);
    for (size_t i = 0; i < count; i++) {
        lua_pushstring(L, weir_result_notice(result, i));
        lua_rawseti(L, -2, (int)i + 1);
    }
}

/* For whoever decodes by himself: { name, type, name, type, ... } of the columns, and the notices. */
void wl_push_particulars(lua_State *L, const weir_result *result)
{
    size_t columns = weir_result_columns(result);
    lua_createtable(L, (int)columns * 2, 0);
    for (size_t column = 0; column < columns; column++) {
        lua_pushstring(L, weir_result_name(result, column));
        lua_rawseti(L, -2, (int)column * 2 + 1);
        lua_pushinteger(L, (lua_Integer)weir_result_type(result, column));
        lua_rawseti(L, -2, (int)column * 2 + 2);
    }
    push_notices(L, result);
}

/* The stack top must be where wl_decoder_begin left it. */
void wl_push_result(lua_State *L, const struct wl_decoder *decoder, const weir_result *result)
{
    const char *tag = weir_result_tag(result);
    bool has_rows = weir_result_columns(result) > 0;
    if (!has_rows && !counts_rows(tag)) {
        lua_pushboolean(L, 1);
        return;
    }
    if (has_rows)
        push_rows(L, decoder, result);
    else
        lua_createtable(L, 0, 1);
    if (!has_rows || changes_rows(tag)) {
        lua_pushinteger(L, (lua_Integer)weir_result_affected(result));
        lua_setfield(L, -2, "affected_rows");
    }
    if (decoder->native != 0 || weir_result_notice_count(result) == 0) return;
    push_notices(L, result);
    lua_setfield(L, -2, "notices");
}

/* ---- errors -------------------------------------------------------------------------------------------- */

static void set_text(lua_State *L, const char *name, const char *value)
{
    if (value[0] == '\0') return;
    lua_pushstring(L, value);
    lua_setfield(L, -2, name);
}

void wl_push_error(lua_State *L, const weir_error *error)
{
    lua_createtable(L, 0, 16);
    set_text(L, "code", weir_code_name(error->code));
    set_text(L, "class", weir_class_name(error->class_));
    set_text(L, "outcome", weir_outcome_name(error->outcome));
    set_text(L, "phase", weir_phase_name(error->phase));
    set_text(L, "sqlstate", error->sqlstate);
    set_text(L, "severity", error->severity);
    set_text(L, "message", error->message);
    set_text(L, "detail", error->detail);
    set_text(L, "hint", error->hint);
    set_text(L, "evidence", error->evidence);
    set_text(L, "context", error->context);
    set_text(L, "pool", error->pool);
    lua_pushinteger(L, (lua_Integer)error->attempts);
    lua_setfield(L, -2, "attempts");
    if (error->position > 0) {
        lua_pushinteger(L, (lua_Integer)error->position);
        lua_setfield(L, -2, "position");
    }
    if (error->retry_after_ns > 0) {
        lua_pushnumber(L, (lua_Number)error->retry_after_ns / 1e9);
        lua_setfield(L, -2, "retry_after");
    }
}
