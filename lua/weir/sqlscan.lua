--- Walking over SQL text as PostgreSQL's own lexer would (standard_conforming_strings on, which Weir insists
-- on): where one statement ends and the next begins, with which words it begins, how many parameters it
-- names. Strings, quoted names, dollar quotes and comments are understood, so that nothing inside them
-- counts.

local sqlscan = {}

local find, sub, byte, match = string.find, string.sub, string.byte, string.match

local WORD = "^[%a_\128-\255][%w_$\128-\255]*"

-- ---- what is passed over ----------------------------------------------------------------------------------

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
            at = start + 1 -- two slashes or two stars: the second may begin a mark
        end
    until depth == 0
    return at
end

local function line_end(sql, at)
    return find(sql, "[\r\n]", at) or #sql + 1
end

-- Behind the quote that ends what `at` opened. A doubled quote opens the next literal, which comes to the
-- same.
local function quote_end(sql, at, quote)
    return (find(sql, quote, at + 1, true) or #sql) + 1
end

-- The same where a backslash takes the next character along. It goes on in a literal that follows on a later
-- line.
local function escaped_end(sql, at)
    while true do
        at = at + 1
        while true do
            local stop = find(sql, "['\\]", at)
            if not stop then return #sql + 1 end
            at = stop + (byte(sql, stop) == 92 and 2 or 1)
            if byte(sql, stop) == 39 then break end
        end
        local _, blank = find(sql, "^%s*\n%s*", at)
        if not blank or byte(sql, blank + 1) ~= 39 then return at end
        at = blank + 1
    end
end

-- Behind $tag$ ... $tag$, or behind the dollar if it opens nothing.
local function dollar_end(sql, at)
    local tag = match(sql, "^%$[%a_\128-\255][%w_\128-\255]*%$", at) or match(sql, "^%$%$", at)
    if not tag then return at + 1 end
    local _, last = find(sql, tag, at + #tag, true)
    return (last or #sql) + 1
end

local skippers = {
    ["-"] = function(sql, at)
        return sub(sql, at + 1, at + 1) == "-" and line_end(sql, at) or at + 1
    end,
    ["/"] = function(sql, at)
        return sub(sql, at + 1, at + 1) == "*" and comment_end(sql, at) or at + 1
    end,
    ["'"] = function(sql, at)
        return quote_end(sql, at, "'")
    end,
    ['"'] = function(sql, at)
        return quote_end(sql, at, '"')
    end,
    ["$"] = dollar_end,
}

-- Where the word at `at` ends, and the word in capitals; nil for the prefix of a literal, which is passed
-- over with it.
local function take_word(sql, at)
    local _, last = find(sql, WORD, at)
    local word = sub(sql, at, last)
    if #word == 1 and byte(sql, last + 1) == 39 then
        local escaped = word == "e" or word == "E"
        return (escaped and escaped_end or skippers["'"])(sql, last + 1)
    end
    return last + 1, word:upper()
end

-- ---- words ------------------------------------------------------------------------------------------------

--- The first words of a statement, in capitals, up to `most`; blanks, comments and opening parentheses before
-- the first are passed over. The list ends where something else than a word stands. Second: where it stands.
function sqlscan.words(sql, most)
    local words, at = {}, 1
    while #words < most do
        at = find(sql, "%S", at)
        if not at then return words, #sql + 1 end
        local two = sub(sql, at, at + 1)
        if two == "--" or two == "/*" then
            at = skippers[sub(two, 1, 1)](sql, at)
        elseif sub(two, 1, 1) == "(" and #words == 0 then
            at = at + 1
        elseif find(sql, WORD, at) then
            local after, word = take_word(sql, at)
            if not word then return words, at end
            words[#words + 1] = word
            at = after
        else
            return words, at
        end
    end
    return words, at
end

--- Calls visit(word) for every bare word of the text, in capitals, until it returns something; returns that.
function sqlscan.each_word(sql, visit)
    local at = 1
    while true do
        at = find(sql, "['\"$%-/%w_\128-\255]", at)
        if not at then return nil end
        local skip = skippers[sub(sql, at, at)]
        if skip then
            at = skip(sql, at)
        elseif find(sql, WORD, at) then
            local after, word = take_word(sql, at)
            local found = word and visit(word)
            if found then return found end
            at = after
        else
            at = find(sql, "[^%w_]", at) or #sql + 1
        end
    end
end

--- The largest n of the parameters $n; 0 if there are none.
function sqlscan.parameters(sql)
    local most, at = 0, 1
    if not find(sql, "$", 1, true) then return 0 end
    while true do
        at = find(sql, "['\"$%-/%a_\128-\255]", at)
        if not at then return most end
        local number = match(sql, "^%$(%d+)", at)
        if number then
            most = math.max(most, tonumber(number))
            at = at + 1 + #number
        elseif skippers[sub(sql, at, at)] then
            at = skippers[sub(sql, at, at)](sql, at)
        else
            at = take_word(sql, at)
        end
    end
end

-- ---- statements -------------------------------------------------------------------------------------------

-- The body of a function may be SQL itself, without quotes: BEGIN ATOMIC ...; ...; END. Semicolons inside end
-- nothing.
local function new_body()
    return { depth = 0, words = 0 }
end

local function heed_word(body, word)
    body.words = body.words + 1
    if body.words == 1 then body.maker = word == "CREATE" end
    if body.maker and body.words <= 4
        and (word == "FUNCTION" or word == "PROCEDURE") then body.routine = true end
    if not body.routine then return end
    if word == "BEGIN" or (word == "CASE" and body.depth > 0) then
        body.depth = body.depth + 1
    elseif word == "END" and body.depth > 0 then
        body.depth = body.depth - 1
    end
end

local function is_blank(sql, first, last)
    while true do
        local at = find(sql, "%S", first)
        if not at or at > last then return true end
        local two = sub(sql, at, at + 1)
        if two ~= "--" and two ~= "/*" then return false end
        first = skippers[sub(two, 1, 1)](sql, at)
    end
end

local function add(list, sql, first, last)
    first = find(sql, "%S", first) or first
    if first <= last and not is_blank(sql, first, last) then
        list[#list + 1] = { text = sub(sql, first, last), at = first }
    end
end

local function split_all(sql)
    local list, first, at, parentheses, body = {}, 1, 1, 0, new_body()
    while true do
        at = find(sql, "[;()'\"$%-/%w_\128-\255]", at)
        if not at then break end
        local sign = sub(sql, at, at)
        if skippers[sign] then
            at = skippers[sign](sql, at)
        elseif sign == ";" then
            if parentheses <= 0 and body.depth == 0 then
                add(list, sql, first, at - 1)
                first, parentheses, body = at + 1, 0, new_body()
            end
            at = at + 1
        elseif sign == "(" or sign == ")" then
            parentheses = parentheses + (sign == "(" and 1 or -1)
            at = at + 1
        elseif find(sql, WORD, at) then
            local after, word = take_word(sql, at)
            if word then heed_word(body, word) end
            at = after
        else
            at = find(sql, "[^%w_]", at) or #sql + 1
        end
    end
    add(list, sql, first, #sql)
    return list
end

--- The statements of a text: { { text =, at = the byte where it begins }, ... }. Empty ones are left out.
function sqlscan.split(sql)
    local semicolon = find(sql, ";", 1, true)
    if semicolon and find(sql, "%S", semicolon + 1) then return split_all(sql) end
    local list = {}
    add(list, sql, 1, #sql)
    if #list == 1 and is_blank(sql, 1, (semicolon or 1) - 1) and semicolon then return {} end
    return list
end

--- How many characters stand before the byte `at`, in UTF-8: the server counts positions in these.
function sqlscan.characters_before(sql, at)
    local _, count = sub(sql, 1, at - 1):gsub("[^\128-\191]", "")
    return count
end

return sqlscan
