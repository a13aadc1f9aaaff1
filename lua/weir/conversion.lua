--- What the binding needs of Lua to turn values into Lua's and back. Whoever brings results to Lua requires it.

local core = require "weir.core"
local json = require "weir.json"
local rows = require "weir.rows"
local types = require "weir.types"

-- A JSON text from the server that dkjson cannot read stays text: a result must never raise.
local function decode_json(text)
    local value, why = json.decode(text)
    if why then return text end
    return value
end

core.setup(json.null, decode_json, types.Parameter, rows.makers, rows.maker)
