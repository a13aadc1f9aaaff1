--- The policy file under examination: it returns the options of an engine, or opens one.

local core = require "weir.core"
local weir = require "weir"

local patient = {}

local TAKEN = {} -- what leaves a program whose options have been taken, where yielding does not

-- Stands in for weir.open while the file runs: notes the options, and lets the file go no further.
local function stand_in(seen, thread)
    return function(options)
        seen.options = seen.options or options
        seen.called = true
        if coroutine.running() == thread then coroutine.yield(TAKEN) end
        error(TAKEN, 0)
    end
end

-- Runs the chunk until it returns or opens an engine. True and what it returned, or false and the error.
local function run_until_open(chunk, path, seen)
    local open, given = weir.open, rawget(_G, "arg")
    local thread = coroutine.create(chunk)
    weir.open = stand_in(seen, thread)
    rawset(_G, "arg", { [0] = path })
    local ok, value = coroutine.resume(thread)
    weir.open = open
    rawset(_G, "arg", given)
    return ok, value
end

local function not_options(path, value)
    return nil, ("%s returns a %s and opens no engine; a policy returns the table of options that " ..
        "weir.open takes, " ..
        "or calls weir.open"):format(path, type(value))
end

--- The options of the policy.
-- @return options, or nil and a sentence with file and line
function patient.options(path)
    local chunk, why = loadfile(path, "t")
    if not chunk then return nil, why end
    local seen = {}
    local ok, value = run_until_open(chunk, path, seen)
    if seen.called then value = seen.options
    elseif not ok then return nil, tostring(value) end
    if type(value) ~= "table" then return not_options(path, value) end
    local sound, reason = core.check(value)
    if not sound then return nil, ("%s: %s"):format(path, reason) end
    return value
end

return patient
