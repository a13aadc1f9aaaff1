--- A policy file: Lua that returns the options of an engine.

local core = require "weir.core"

local policyfile = {}

local LABEL = "\n-- weir: read at "
local MAX = 256 * 1024 -- bytes; WEIR_POLICY_MAX

-- 5.4 and 5.1 load a text each in its own way.
local load_text = loadstring or load -- luacheck: ignore

--- The text of a policy's file.
-- @return the text, or nil and a sentence
function policyfile.read(path)
    local file, why = io.open(path, "rb")
    if not file then return nil, why end
    local text, fault = file:read(MAX + 1)
    file:close()
    if fault then return nil, ("%s: %s"):format(path, fault) end
    if text and #text > MAX then return nil, ("%s: a policy has %d bytes at most"):format(path, MAX) end
    return text or ""
end

--- What the text returns.
-- @param name  of the file, for messages
-- @return options, or nil and a sentence with file and line
function policyfile.options(text, name)
    local chunk, why = load_text(text, "@" .. name)
    if not chunk then return nil, why end
    local ok, options = pcall(chunk)
    if not ok then return nil, tostring(options) end
    if type(options) ~= "table" then
        local said = "%s returns a %s; a policy file returns the table of options that weir.open takes"
        return nil, said:format(name, type(options))
    end
    return options
end

--- The text with the moment (microseconds since 1970) when it was read, by which the newer of two is told.
function policyfile.stamped(text, at)
    return ("%s%s%.0f"):format(text, LABEL, at)
end

--- The text, and when it was read; 0 if that is not told.
function policyfile.unstamped(text)
    local bare, at = text:match("^(.*)\n%-%- weir: read at (%d+)$")
    return bare or text, tonumber(at or 0)
end

--- The options for an engine on a shared area, looked through as far as that goes without opening anything.
-- @return options, or nil and a sentence
function policyfile.engine_options(text, name, area, area_size)
    local options, why = policyfile.options(text, name)
    if not options then return nil, why end
    if options.area ~= nil then return nil, name .. ": area may not be set here: weir_area sets it" end
    options.area, options.area_size = area, area_size
    local sound, reason = core.check(options)
    if not sound then return nil, name .. ": " .. reason end
    return options
end

--- Reads the policy as a worker will. Returns nothing, or a sentence.
function policyfile.check(text, name, area, area_size)
    local options, why = policyfile.engine_options(text, name, area, area_size)
    return not options and why or nil
end

return policyfile
