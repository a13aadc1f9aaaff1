--- The one thing Lua wants to know about a statement before it is sent.

local sqltext = {}

local find, sub = string.find, string.sub

-- Behind the comment that starts at `at`; comments nest.
local function comment_end(sql, at)
    local depth = 0
    repeat
        local start = find(sql, "[/*][/*]", at)
        if not start then return #sql + 1 end
        local mark = sub(sql, start, start + 1)
        at = start + 2
        if mark == "/*" then
            depth = depth + 1
        elseif mark == "*/" then
            depth = depth - 1
        else
            at = start + 1       -- two slashes or two stars: the second may begin a mark
        end
    until depth == 0
    return at
end

local function skip_blanks(sql, at)
    while true do
        at = find(sql, "%S", at) or #sql + 1
        local mark = sub(sql, at, at + 1)
        if mark == "--" then
            at = find(sql, "[\r\n]", at) or #sql + 1
        elseif mark == "/*" then
            at = comment_end(sql, at)
        else
            return at
        end
    end
end

-- The word at `at` or behind the blanks there, in capitals, and where it ends.
local function next_word(sql, at)
    at = skip_blanks(sql, at)
    local _, last, word = find(sql, "^(%a+)", at)
    return word and word:upper(), last and last + 1 or at
end

--- True for ROLLBACK [WORK | TRANSACTION] TO ..., the only statement that a failed transaction takes and that
-- does not end it.
function sqltext.is_rollback_to(sql)
    local word, at = next_word(sql, 1)
    if word ~= "ROLLBACK" then return false end
    word, at = next_word(sql, at)
    if word == "WORK" or word == "TRANSACTION" then word = next_word(sql, at) end
    return word == "TO"
end

return sqltext
