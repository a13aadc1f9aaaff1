--- Errors of calls as tables with one readable line, and misuse raised at the caller's line.

local errors = {}

local Error = { __name = "weir.error" }
Error.__index = Error

-- Frames in this directory are ours, and so is all of resty/weir beside it; the first one outside is the
-- caller who is to blame.
local source = debug.getinfo(1, "S").source
local own = source:match("^(.*[/\\])")
local face = own and own:match("^(.*[/\\])weir[/\\]$")
face = face and face .. "resty/weir"

local function is_ours(frame)
    if frame.what == "C" or frame.source == "=?" then return true end
    if not own then return frame.source == source end
    if face and frame.source:sub(1, #face) == face then return true end
    return frame.source:sub(1, #own) == own and not frame.source:find("[/\\]", #own + 1)
end

--- Raises `message` at the line outside lua/weir that called into it.
function errors.misuse(message)
    local level = 2
    local frame = debug.getinfo(level, "S")
    while frame and is_ours(frame) do
        level = level + 1
        frame = debug.getinfo(level, "S")
    end
    error("weir: " .. message, frame and level or 0)
end

--- misuse with a format.
function errors.misusef(format, ...)
    errors.misuse(format:format(...))
end

--- Gives a table of fields (code, sqlstate, message, ...) the manners of an error.
function errors.wrap(fields)
    return setmetatable(fields, Error)
end

--- An error made here rather than by the engine.
function errors.new(code, message, fields)
    local err = fields or {}
    err.code = code
    err.message = message
    err.class = err.class or "permanent"
    err.outcome = err.outcome or "none"
    err.attempts = err.attempts or 0
    return setmetatable(err, Error)
end

function errors.is(value)
    return getmetatable(value) == Error
end

local function outcome_text(err)
    if err.outcome == "unknown" then return "outcome unknown" end
    if err.outcome == "rolled_back" then return "rolled back" end
    return err.outcome ~= "none" and err.outcome or nil
end

local function particulars(err)
    local parts = {}
    local function add(text)
        if text then parts[#parts + 1] = text end
    end
    add(outcome_text(err))
    if (err.attempts or 0) > 1 then add(("%d attempts"):format(err.attempts)) end
    add(err.evidence)
    if err.retry_after then add(("retry after %.3g s"):format(err.retry_after)) end
    return #parts > 0 and " (" .. table.concat(parts, "; ") .. ")" or ""
end

--- GET /contacts: server_error 23505 on anon@primary: duplicate key value ... (rolled back)
function Error:__tostring()
    local text = (self.context and self.context .. ": " or "") .. tostring(self.code)
    if self.sqlstate then text = text .. " " .. self.sqlstate end
    if self.pool then text = text .. " on " .. self.pool end
    if self.message then text = text .. ": " .. self.message end
    return ((text .. particulars(self)):gsub("%s*[\r\n]+%s*", " "))
end

return errors
