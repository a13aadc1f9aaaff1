--- What a worker of `weir test` tells its supervisor: one event a line, its fields with tabs between, each
-- with its type, so that any text survives.

local wire = {}

local escapes = { ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t" }
local meanings = { ["\\"] = "\\", n = "\n", r = "\r", t = "\t" }

local writers = {
    string = function(value)
        return "=" .. value:gsub("[\\\n\r\t]", escapes)
    end,
    number = function(value)
        return "#" .. ("%.17g"):format(value):gsub(",", ".")
    end,
    boolean = function(value)
        return "?" .. tostring(value)
    end,
}

local readers = {
    ["="] = function(text)
        return (text:gsub("\\(.)", meanings))
    end,
    ["#"] = tonumber,
    ["?"] = function(text)
        return text == "true"
    end,
}

--- The line of an event, a table of names and strings, numbers or booleans.
function wire.encode(event)
    local fields = {}
    for name, value in pairs(event) do
        fields[#fields + 1] = name .. writers[type(value)](value)
    end
    table.sort(fields)
    return table.concat(fields, "\t") .. "\n"
end

--- The event of a line, with or without its end.
function wire.decode(line)
    local event = {}
    for name, kind, value in line:gmatch "([%w_]+)([=#?])([^\t\n]*)" do
        event[name] = readers[kind](value)
    end
    return event
end

return wire
