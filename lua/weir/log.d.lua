---@meta weir.log
-- Options of the structured log, for the Lua language server. Never loaded.

---@class weir.log_options
---@field to? string "stderr", "nginx" inside nginx, or a path with a "/" in it ("stderr"; inside nginx "nginx").
---@field format? "logfmt"|"json" ("logfmt")
---@field level? "info"|"warn"|"error"|"off" The least that is written ("info").
