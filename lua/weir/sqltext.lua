--- The one thing Lua wants to know about a statement before it is sent.

local sqlscan = require "weir.sqlscan"

local sqltext = {}

--- True for ROLLBACK [WORK | TRANSACTION] TO ..., the only statement that a failed transaction takes and that
-- does not end it.
function sqltext.is_rollback_to(sql)
    local words = sqlscan.words(sql, 3)
    if words[1] ~= "ROLLBACK" then return false end
    local optional = words[2] == "WORK" or words[2] == "TRANSACTION"
    return words[optional and 3 or 2] == "TO"
end

return sqltext
