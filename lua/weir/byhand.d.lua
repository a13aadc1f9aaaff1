---@meta weir.byhand
-- What handle:begin gives, for the Lua language server. Never loaded.

---A transaction that is driven by hand. Errors are returned, and none of it is ever run again.
---@class weir.by_hand
local by_hand = {}

---@param sql string
---@param ... weir.value
---@return weir.result?, weir.error?
function by_hand:query(sql, ...) end

---@param statements weir.statement[]
---@param read? fun(call: userdata, number: integer, null: boolean): any How a result is read.
---@return weir.result[]?, weir.error?, weir.result[]? before The results before the error.
function by_hand:pipeline(statements, read) end

---@return true?, weir.error?
function by_hand:commit() end

---@return true
function by_hand:rollback() end

---@return boolean over Nothing can be done in it any more: it was committed, rolled back, late, or lost.
function by_hand:is_over() end

---@return number seconds left for all of it
function by_hand:remaining() end
