--- How figures and names are said in what the doctor prints.

local phrases = {}

-- Words that are no names without quotes.
local reserved = {}
for word in ([[all analyse analyze and any array as asc asymmetric authorization both case cast check collate
    column concurrently constraint create cross current_date current_role current_time current_user
    default deferrable desc distinct do else end except false fetch for foreign freeze from full
    grant group having ilike in initially inner intersect into is isnull join lateral leading left
    like limit localtime not notnull null offset on only or order outer overlaps placing primary
    references returning right select session_user similar some symmetric table then to trailing
    true union unique user using variadic verbose when where window with]]):gmatch "%S+" do
    reserved[word] = true
end

--- A name as an identifier of SQL.
function phrases.ident(name)
    if name:find "^[a-z_][a-z0-9_]*$" and not reserved[name] then return name end
    return '"' .. name:gsub('"', '""') .. '"'
end

--- A text as a literal of SQL.
function phrases.literal(text)
    return "'" .. text:gsub("'", "''") .. "'"
end

--- 0.0031 -> "3.1 ms", 75 -> "75 s".
function phrases.seconds(value)
    if value < 0.0000005 then return "0 s" end
    if value < 0.001 then return ("%.0f us"):format(value * 1e6) end
    if value < 1 then return ("%.3g ms"):format(value * 1e3) end
    if value < 1000 then return ("%.3g s"):format(value) end
    return ("%.0f s"):format(value)
end

--- 20971520 -> "20 MiB".
function phrases.bytes(value)
    local units, at = { "bytes", "KiB", "MiB", "GiB", "TiB" }, 1
    while value >= 1024 and at < #units do value, at = value / 1024, at + 1 end
    return ("%.4g %s"):format(value, units[at])
end

--- "a, b and 3 more".
function phrases.some(names, most)
    if #names <= most then return table.concat(names, ", ") end
    return ("%s and %d more"):format(table.concat(names, ", ", 1, most), #names - most)
end

--- Without what stands where passwords stand in connection strings.
function phrases.discreet(text, secrets)
    text = text:gsub("(://[^:/@%s]*):[^@%s]*@", "%1:***@"):gsub("([Pp]assword%s*=%s*)'[^']*'", "%1***")
    text = text:gsub("([Pp]assword%s*=%s*)[^%s'*]+", "%1***")
    for _, secret in ipairs(secrets or {}) do
        -- hiding every "a" of a text would tell more than it hides
        if #secret >= 3 then text = text:gsub(secret:gsub("%p", "%%%0"), "***") end
    end
    return text
end

return phrases
