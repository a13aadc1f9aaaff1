--- What a statement is to a session: begins or ends a transaction, sets something that would have to outlive
-- it, or is simply sent. Told by its first words.

local sqlscan = require "weir.sqlscan"

local verbs = {}

local function kind_of_set(words)
    if words[2] == "LOCAL" or words[2] == "CONSTRAINTS" then return "plain" end
    if words[2] == "TRANSACTION" then return "set_transaction" end
    return "set"
end

local function kind_of_rollback(words)
    local second = words[2]
    if second == "WORK" or second == "TRANSACTION" then second = words[3] end
    if second == "TO" then return "rollback_to" end
    return second == "PREPARED" and "two_phase" or "rollback"
end

local function is_temporary(words)
    for i = 2, 4 do
        if words[i] == "TEMP" or words[i] == "TEMPORARY" then return true end
    end
    return false
end

-- What cannot run in a transaction, and so neither behind settings. Others that cannot are refused by the
-- server.
local function stands_alone(words)
    if words[1] == "VACUUM" then return true end
    if words[2] == "DATABASE" or words[2] == "TABLESPACE" or words[2] == "SYSTEM" then return true end
    return words[3] == "CONCURRENTLY" or words[4] == "CONCURRENTLY"
end

local function kind_of_definition(words)
    if is_temporary(words) then return "temporary" end
    return stands_alone(words) and "alone" or "plain"
end

local function always(kind)
    return function() return kind end
end

local kinds = {
    BEGIN = always "begin",
    START = function(words) return words[2] == "TRANSACTION" and "begin" or "plain" end,
    COMMIT = function(words) return words[2] == "PREPARED" and "two_phase" or "commit" end,
    END = always "commit",
    ROLLBACK = kind_of_rollback, ABORT = always "rollback",
    SAVEPOINT = always "savepoint", RELEASE = always "savepoint",
    SET = kind_of_set, RESET = always "reset", DISCARD = always "discard",
    LISTEN = always "listen", UNLISTEN = always "unlisten",
    DO = always "code", CALL = always "code", COPY = always "copy",
    PREPARE = function(words) return words[2] == "TRANSACTION" and "two_phase" or "prepared" end,
    EXECUTE = always "prepared", DEALLOCATE = always "prepared", LOAD = always "prepared",
    VACUUM = always "alone", REINDEX = kind_of_definition,
    CREATE = kind_of_definition, DROP = kind_of_definition, ALTER = kind_of_definition,
}

local locks = {}
for _, name in ipairs {
    "ADVISORY_LOCK", "ADVISORY_LOCK_SHARED", "TRY_ADVISORY_LOCK", "TRY_ADVISORY_LOCK_SHARED",
    "ADVISORY_UNLOCK", "ADVISORY_UNLOCK_SHARED", "ADVISORY_UNLOCK_ALL",
} do
    locks["PG_" .. name] = true
end

local function takes_session_lock(sql)
    if not sql:find "[aA][dD][vV][iI][sS][oO][rR][yY]_" then return false end
    return sqlscan.each_word(sql, function(word) return locks[word] end) or false
end

local function holds_cursor(words, sql)
    if words[1] ~= "DECLARE" then return false end
    local before
    return sqlscan.each_word(sql, function(word)
        local found = before == "WITH" and word == "HOLD"
        before = word
        return found or nil
    end) or false
end

--- "plain", or what makes it something else.
function verbs.kind(sql)
    local words = sqlscan.words(sql, 4)
    local known = kinds[words[1]]
    local kind = known and known(words) or "plain"
    if kind ~= "plain" then return kind end
    if takes_session_lock(sql) then return "lock" end
    return holds_cursor(words, sql) and "cursor" or "plain"
end

-- ---- how a transaction is wanted --------------------------------------------------------------------------

local modes = {
    { "^ISOLATION LEVEL SERIALIZABLE", "isolation", "serializable" },
    { "^ISOLATION LEVEL REPEATABLE READ", "isolation", "repeatable read" },
    { "^ISOLATION LEVEL READ COMMITTED", "isolation", "read committed" },
    { "^ISOLATION LEVEL READ UNCOMMITTED", "isolation", "read committed" },
    { "^READ ONLY", "readonly", true },
    { "^READ WRITE", "readonly", false },
    { "^NOT DEFERRABLE" },
}

local function take_mode(rest, wanted)
    for _, mode in ipairs(modes) do
        local _, last = rest:find(mode[1] .. "%f[%W]")
        if last then
            if mode[2] then wanted[mode[2]] = mode[3] end
            return (rest:sub(last + 1):gsub("^%s*,?%s*", ""))
        end
    end
    return nil
end

--- What BEGIN, START TRANSACTION or SET TRANSACTION ask for: { isolation =, readonly = }, on top of `before`;
-- or nil and the part that is not understood.
function verbs.modes(sql, before)
    local wanted = {}
    for key, value in pairs(before or {}) do wanted[key] = value end
    local rest = sql:gsub("%-%-[^\r\n]*", " "):gsub("/%*.-%*/", " "):gsub("[;%s]+", " "):upper()
    for _, word in ipairs { "BEGIN", "START", "SET", "WORK", "TRANSACTION" } do
        rest = rest:gsub("^ ?" .. word .. "%f[%W]", "", 1)
    end
    rest = rest:gsub("^ ", ""):gsub(" $", "")
    while rest ~= "" do
        local after = take_mode(rest, wanted)
        if not after then return nil, rest end
        rest = after
    end
    return wanted
end

--- Whether a COMMIT or ROLLBACK asks for the next transaction at once.
function verbs.chains(sql)
    local words = sqlscan.words(sql, 4)
    for i = 2, 3 do
        if words[i] == "AND" then return words[i + 1] == "CHAIN" end
    end
    return false
end

--- The channels of LISTEN or UNLISTEN: a name as the server folds it, or "*".
function verbs.channel(sql)
    local name = sql:match '^%s*%a+%s+"([^"]+)"' or sql:match "^%s*%a+%s+(%*)"
    if name then return name end
    name = sql:match "^%s*%a+%s+([%a_\128-\255][%w_$\128-\255]*)"
    return name and name:lower()
end

return verbs
