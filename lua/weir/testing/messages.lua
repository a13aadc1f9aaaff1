--- PostgreSQL's messages in a stream of bytes, read just far enough to know what a proxy has to know: where a
-- request ends, whether a COMMIT is in it, and where its answer ends.

local messages = {}

local PREFIX = 256      -- bytes of a message that are looked at: a name and the start of a statement
local NAMES_MAX = 10000 -- prepared statements remembered per connection

local CODE_SSL, CODE_GSS, CODE_CANCEL = 80877103, 80877104, 80877102

local function number_at(text, at)
    local a, b, c, d = text:byte(at, at + 3)
    return ((a * 256 + b) * 256 + c) * 256 + d
end

local function bytes_of(number)
    local d = number % 256
    local c = (number - d) / 256 % 256
    local b = (number - d - c * 256) / 65536 % 256
    return string.char(0, b, c, d)
end

--- The first message of a connection, which has no type: "ssl", "gss", "cancel" or "startup", and its length.
-- Nil as long as it is not all there, false if it is no such message.
function messages.opening(text)
    if #text < 8 then return nil end
    local length, code = number_at(text, 1), number_at(text, 5)
    if length < 8 or length > 10000 then return false end
    if #text < length then return nil end
    if code == CODE_SSL then return "ssl", length end
    if code == CODE_GSS then return "gss", length end
    return code == CODE_CANCEL and "cancel" or "startup", length
end

--- An ErrorResponse that ends a connection.
function messages.fatal(sqlstate, message)
    local body = "SFATAL\0VFATAL\0C" .. sqlstate .. "\0M" .. message .. "\0\0"
    return "E" .. bytes_of(#body + 4) .. body
end

-- ---- both directions --------------------------------------------------------------------------------------

local Stream = {}
Stream.__index = Stream

--- Cuts a stream into messages: see Stream:feed.
function messages.stream()
    return setmetatable({ partial = "", left = 0 }, Stream)
end

--- Takes the next bytes. `judge(message, prefix)` hears of each message once, as soon as its first PREFIX
-- bytes (or all of it) are there: its type and, without type and length, its start. It returns nil to go on,
-- "before" or "after" to stop there. Returns the bytes that may pass on; where it stopped, also "before" or
-- "after" and the bytes behind, which have not been read yet. Bytes of a message whose start is not complete
-- are kept for the next time.
function Stream:feed(bytes, judge)
    local text = self.partial .. bytes
    local at = self.left + 1
    self.partial, self.left = "", 0
    while at <= #text do
        local length = at + 4 <= #text and number_at(text, at + 1) + 1
        local seen = #text - at + 1
        if not length or seen < length and seen < PREFIX then
            self.partial = text:sub(at)
            return text:sub(1, at - 1)
        end
        local verdict = judge(text:sub(at, at), text:sub(at + 5, at + math.min(length, PREFIX) - 1))
        if verdict == "before" then return text:sub(1, at - 1), verdict, text:sub(at) end
        at = at + length
        if verdict then
            self.left = math.max(at - #text - 1, 0)
            return text:sub(1, at - 1), verdict, text:sub(at)
        end
    end
    self.left = at - #text - 1
    return text
end

-- ---- what a client says -----------------------------------------------------------------------------------

local Speaker = {}
Speaker.__index = Speaker

--- Follows a client's requests.
function messages.speaker()
    return setmetatable({ known = {}, names = 0, fresh = true }, Speaker)
end

local kinds = { -- of a statement, by its first word; all others are work
    COMMIT = "commit", END = "commit",
    ROLLBACK = "tidy", ABORT = "tidy", DISCARD = "tidy", DEALLOCATE = "tidy", RESET = "tidy",
}

local function kind_of(sql)
    local word = sql:match "^%s*(%a+)"
    return word and kinds[word:upper()] or "work"
end

function Speaker:note_parse(prefix)
    local name, sql = prefix:match "^(%Z*)%z(%Z*)"
    if not name then return "work" end
    if self.names >= NAMES_MAX then self.known, self.names = {}, 0 end
    if self.known[name] == nil then self.names = self.names + 1 end
    self.known[name] = kind_of(sql)
    return self.known[name]
end

-- What kind of statement a message is about, if any.
function Speaker:subject(message, prefix)
    if message == "Q" then return kind_of(prefix) end
    if message == "P" then return self:note_parse(prefix) end
    local name = message == "B" and prefix:match "^%Z*%z(%Z*)%z"
    return name and self.known[name] or nil
end

--- Of one message: whether it begins a request; what its statement is, "work", "commit" or "tidy", or nil if
-- it is about none; and whether it runs it. A request ends where the server answers that it is ready again.
function Speaker:hear(message, prefix)
    if message == "X" or message == "p" then return false end
    local begins = self.fresh
    self.fresh = message == "Q" or message == "S" or message == "F"
    return begins, self:subject(message, prefix), message == "B" or message == "Q"
end

return messages
