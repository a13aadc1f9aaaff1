---@meta weir.listen
-- What handle:listen gives, for the Lua language server. Never loaded.

---@class weir.listen_options
---@field queue? integer Notifications kept until somebody takes them (1000); more are told as a gap.

---@class weir.notification
---@field channel string
---@field payload string
---@field pid integer Of the backend that sent it.

---A connection of its own that LISTENs, and comes back by itself when it is lost.
---@class weir.listener
local listener = {}

---Waits for the next notification; others run meanwhile.
---@param seconds? number How long at most; nil: for ever.
---@return weir.notification?, weir.error? err Code "timeout"; "gap": something may have been missed here, go on; "closed".
function listener:wait(seconds) end

---One after the other until it is closed; where something may have been missed comes { gap = true }.
---@return fun(): weir.notification|{ gap: true }|nil
function listener:each() end

---@param channel string Taken literally.
---@return true?, weir.error? err No connection now: it is taken in when there is one again.
function listener:listen(channel) end

---@param channel string
---@return true?, weir.error?
function listener:unlisten(channel) end

---@return "listening"|"lost"|"asking"|"closed" state, weir.error? why Of "lost".
function listener:state() end

---Whoever waits is told "closed". A listener that nobody holds any more closes itself.
function listener:close() end
