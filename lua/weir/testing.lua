--- Throw-away PostgreSQL servers for tests and demonstrations.
--
--     local pg = assert(require("weir.testing").postgres())
--     pg:sql("create table t (id int)")
--     print(pg:url())            --> postgresql://postgres@%2Ftmp%2Fweir-pg.x7Kq2a:5432/postgres
--     pg:stop("immediate")       -- pull the plug
--     pg:start()
--     pg:close()
--
-- Every server runs as an unprivileged user in a private directory and is gone with the Lua process that
-- asked for it, however that one ends. Needs a POSIX shell and PostgreSQL's programs; works in Lua 5.4 and
-- LuaJIT. Calls block until the server has done what was asked, in a coroutine too.
--
-- The directory lies under TMPDIR. Where that is not set, it lies in memory (/dev/shm) if there is plenty of
-- it and durability was not asked for, and under /tmp otherwise.

local keeper = require("weir.testing.keeper")
local url = require("weir.testing.url")

local Postgres = {}
Postgres.__index = Postgres

-- ---- options ----------------------------------------------------------------------------------------------

local option_types = {
    name = "string",     -- 1 to 16 letters, digits, - and _: part of the directory's name
    bin = "string",      -- folder of postgres, initdb and psql
    version = "number",  -- major version wanted
    settings = "table",  -- postgresql.conf: name = string, number or boolean
    hba = "string",      -- lines of pg_hba.conf that come before "trust for all"
    durable = "boolean", -- true: fsync, as in production
    tcp = "boolean",     -- true: also listens on 127.0.0.1, on a free port
}

local chosen_here = {
    port = true, listen_addresses = true, unix_socket_directories = true, data_directory = true,
}

local function misuse(format, ...)
    error("weir.testing.postgres: " .. string.format(format, ...), 4)
end

local function known_options()
    local names = {}
    for name in pairs(option_types) do names[#names + 1] = name end
    table.sort(names)
    return table.concat(names, ", ")
end

local function check_options(opts)
    if type(opts) ~= "table" then misuse("options must be a table, not a %s", type(opts)) end
    for name, value in pairs(opts) do
        local wanted = option_types[name]
        if not wanted then misuse("unknown option '%s' (known: %s)", tostring(name), known_options()) end
        if type(value) ~= wanted then misuse("%s must be a %s, not a %s", name, wanted, type(value)) end
        if wanted == "string" and value:find("%z") then misuse("%s must not contain a NUL byte", name) end
    end
    if opts.name and not (opts.name:find("^[%w_-]+$") and #opts.name <= 16) then
        misuse("name must be 1 to 16 letters, digits, - or _, not '%s'", opts.name)
    end
    if opts.bin and opts.bin:find("%c") then misuse("bin must not contain control characters") end
    if opts.version and not tostring(opts.version):find("^%d+$") then
        misuse("version must be a major version such as 15, not %s", tostring(opts.version))
    end
end

local function setting_value(name, value)
    local kind = type(value)
    if kind == "boolean" then return value and "on" or "off" end
    if kind == "number" then return tostring(value) end
    if kind ~= "string" then misuse("settings.%s must be a string, number or boolean, not %s", name, kind) end
    if value:find("[%z\r\n]") then misuse("settings.%s must be one line", name) end
    return "'" .. value:gsub("\\", "\\\\"):gsub("'", "''") .. "'"
end

local function settings_text(opts)
    local lines = { "max_connections = 200", "shared_buffers = 32MB", "max_wal_size = 128MB" }
    -- Commits stay synchronous: what was committed has to survive a stop "immediate", only not a loss of
    -- power.
    if not opts.durable then lines[#lines + 1] = "fsync = off\nfull_page_writes = off" end
    for name, value in pairs(opts.settings or {}) do
        if type(name) ~= "string" or not name:find("^[%a_][%w_.]*$") then
            misuse("settings has no valid name '%s'", tostring(name))
        end
        if chosen_here[name] then misuse("settings.%s is chosen by weir.testing", name) end
        lines[#lines + 1] = name .. " = " .. setting_value(name, value)
    end
    return table.concat(lines, "\n")
end

-- ---- shell ------------------------------------------------------------------------------------------------

local function quote(text)
    return "'" .. text:gsub("'", "'\\''") .. "'"
end

-- Opens the reply channel as its creator, then becomes the keeper: of the unprivileged user, out of reach of
-- the terminal's signals. What goes wrong before the keeper speaks is said on the same channel.
local launcher = [[
exec 3>%s >/dev/null 2>&3
cd /
set -- sh -s -- %s
if [ "$(id -u)" = 0 ]; then
    command -v setpriv >/dev/null || { echo "to run as root, util-linux with setpriv is needed" >&3; exit 1; }
    user=postgres
    id -u $user >/dev/null 2>&1 || user=nobody
    set -- setpriv --reuid=$user --regid="$(id -g $user)" --init-groups --reset-env "$@"
fi
command -v setsid >/dev/null && set -- setsid "$@"
exec "$@"
]]

-- os.tmpname made the file, so nobody else can be at that name; mkfifo refuses one that came in between.
local function make_fifo()
    local path = os.tmpname()
    os.remove(path)
    local status = os.execute("mkfifo -m 600 " .. quote(path) .. " 2>/dev/null")
    if status == true or status == 0 then return path end
    return nil, "weir.testing: no FIFO could be made at " .. path
end

local function keeper_program(opts)
    local variables = {
        NAME = opts.name or "pg",
        BIN = opts.bin or "",
        VERSION = opts.version and tostring(opts.version) or "",
        TEMPORARY = os.getenv("TMPDIR") or "",
        PATH = os.getenv("PATH") or "/usr/local/bin:/usr/bin:/bin",
        SETTINGS = settings_text(opts),
        HBA = opts.hba or "",
        TCP = opts.tcp and "yes" or "",
        DURABLE = opts.durable and "yes" or "",
    }
    local lines = {}
    for name, value in pairs(variables) do lines[#lines + 1] = name .. "=" .. quote(value) end
    return table.concat(lines, "\n") .. "\n" .. keeper
end

-- ---- talking to the keeper --------------------------------------------------------------------------------

-- The answer to request `sequence`; answers to requests whose caller was interrupted are passed over.
local function read_answer(replies, sequence)
    while true do
        local line = replies:read("*l")
        if not line then return nil, "weir.testing: the process that keeps the server is gone" end
        local number, word, rest = line:match("^(%d+) (%a+) ?(.*)$")
        if not number then return nil, "weir.testing: " .. line end
        if tonumber(number) == sequence then
            if word == "ok" then return rest end
            return nil, "weir.testing: " .. rest
        end
    end
end

-- Opened for both directions, a FIFO never blocks and never breaks a pipe, whatever became of its reader.
-- Whoever must not wait asks no further: the answer is passed over by the next one who does.
function Postgres:_post(verb, first, second)
    if not self._guardian then return nil, "weir.testing: this server was closed" end
    local commands = io.open(self.dir .. "/commands", "r+")
    if not commands then return nil, "weir.testing: the directory of the server is gone" end
    self._sequence = self._sequence + 1
    commands:write(self._sequence, " ", verb, " ", first or "-", " ", second or "-", "\n")
    commands:close()
    return self._sequence
end

function Postgres:_ask(verb, first, second)
    local sequence, err = self:_post(verb, first, second)
    if not sequence then return nil, err end
    return read_answer(self._replies, sequence)
end

local function read_facts(self)
    local where, err = read_answer(self._replies, 0)
    if not where then return nil, err end
    self.port, self.version, self.dir = where:match("^(%d+) (%S+) (.*)$")
    self.port = tonumber(self.port)
    self._psql = read_answer(self._replies, 0)
    self.bin = read_answer(self._replies, 0)
    return self.bin and self, "weir.testing: the process that keeps the server is gone"
end

--- Starts a server.
-- @param opts  table or nil: name, bin, version, settings, hba, durable, tcp
-- @return the running server, or nil and a sentence that says what is missing
local function postgres(opts)
    opts = opts or {}
    check_options(opts)
    local program = keeper_program(opts)
    local fifo, err = make_fifo()
    if not fifo then return nil, err end
    local self = setmetatable({ _sequence = 1, tcp = opts.tcp or false }, Postgres)
    self._guardian = io.popen(launcher:format(quote(fifo), "weir-testing-" .. (opts.name or "pg")), "w")
    self._guardian:write(program)
    self._guardian:flush()
    self._replies = io.open(fifo, "r") -- both ends wait here for each other
    os.remove(fifo)
    local ok, failure = nil, "weir.testing: interrupted"
    if self._replies then ok, failure = read_facts(self) end
    if ok then return self end
    self:close()
    return nil, failure
end

-- ---- the server's methods ---------------------------------------------------------------------------------

--- The URL of this server for `user` (default: the superuser postgres), `db` (default: postgres) and
-- `password`.
function Postgres:url(user, db, password)
    return url(self.tcp and "127.0.0.1" or self.dir, self.port, user, db, password)
end

local function read_all(path)
    local file, err = io.open(path, "rb")
    if not file then return nil, err end
    local text = file:read("*a")
    file:close()
    return text
end

local function write_all(path, text)
    local file = assert(io.open(path, "wb"))
    file:write(text)
    file:close()
end

local function conninfo_value(text)
    return "'" .. text:gsub("\\", "\\\\"):gsub("'", "\\'") .. "'"
end

-- Nothing of the user's environment may change what the statements mean, hence `env -i`.
local function psql_command(self, db, input, errors)
    local conninfo = string.format("host=%s port=%d user=postgres dbname=%s", conninfo_value(self.dir),
        self.port, conninfo_value(db))
    return string.format("env -i HOME=/ PGCONNECT_TIMEOUT=10 PGCLIENTENCODING=UTF8 "
        .. "LD_LIBRARY_PATH=\"${LD_LIBRARY_PATH:-}\" %s -X -q -A -t -v ON_ERROR_STOP=1 -d %s <%s 2>%s; "
        .. "printf '\\n%%d' $?", quote(self._psql), quote(conninfo), quote(input), quote(errors))
end

--- Runs SQL (any number of statements, psql's backslash commands too) as superuser.
-- @return what psql printed, unaligned and without headers; or nil and its error message
function Postgres:sql(text, db)
    if type(text) ~= "string" then error("pg:sql: the text must be a string, not a " .. type(text), 2) end
    if db ~= nil and type(db) ~= "string" then error("pg:sql: db must be a string, not a " .. type(db), 2) end
    if not self._guardian then return nil, "weir.testing: this server was closed" end
    local input, errors = os.tmpname(), os.tmpname()
    write_all(input, text)
    local pipe = io.popen(psql_command(self, db or "postgres", input, errors), "r")
    local output, status = pipe:read("*a"):match("^(.-)\n?\n(%d+)$")
    pipe:close()
    local message = read_all(errors)
    os.remove(input)
    os.remove(errors)
    if status == "0" then return output end
    return nil, message:gsub("%s+$", "")
end

--- Starts a stopped or crashed server again, on the same socket and port. True also if it is running.
function Postgres:start()
    local ok, err = self:_ask("start")
    return ok and true, err
end

local modes = { smart = true, fast = true, immediate = true }

--- Stops the server and returns when it is gone. True also if it was not running.
-- @param mode     "fast" (default), "immediate" (as if power failed) or "smart" (when every client has left)
-- @param seconds  how long to wait, default 30
function Postgres:stop(mode, seconds)
    mode = mode or "fast"
    seconds = seconds or 30
    if not modes[mode] then
        error("pg:stop: mode must be fast, immediate or smart, not " .. tostring(mode), 2)
    end
    if type(seconds) ~= "number" or not (seconds > 0 and seconds <= 3600) then
        error("pg:stop: seconds must be a number above 0, at most 3600, not " .. tostring(seconds), 2)
    end
    local ok, err = self:_ask("stop", mode, string.format("%d", math.ceil(seconds)))
    return ok and true, err
end

--- Stops and starts.
function Postgres:restart(mode)
    local ok, err = self:stop(mode)
    if not ok then return nil, err end
    return self:start()
end

--- Freezes the postmaster: new connections hang, existing sessions go on.
function Postgres:pause()
    local ok, err = self:_ask("signal", "STOP")
    return ok and true, err
end

--- Lets a paused postmaster go on.
function Postgres:resume()
    local ok, err = self:_ask("signal", "CONT")
    return ok and true, err
end

--- Freezes the whole server: connections are accepted by the kernel, and nobody answers. Statements stand
-- still where they are.
function Postgres:freeze()
    local ok, err = self:_ask("freeze")
    return ok and true, err
end

--- Lets a frozen server go on where it stood.
function Postgres:thaw()
    local ok, err = self:_ask("thaw")
    return ok and true, err
end

local signals = {
    TERM = true, INT = true, QUIT = true, KILL = true, STOP = true, CONT = true, HUP = true, ABRT = true,
}

--- Sends a signal (default "KILL") to one backend of this server; its pid is what pg_backend_pid() says.
function Postgres:kill_backend(pid, signal)
    signal = signal or "KILL"
    pid = tonumber(pid)
    if not (pid and pid > 0 and pid % 1 == 0) then error("pg:kill_backend: pid must be a process id", 2) end
    if not signals[signal] then error("pg:kill_backend: unknown signal " .. tostring(signal), 2) end
    local ok, err = self:_ask("backend", string.format("%d", pid), signal)
    return ok and true, err
end

--- The postmaster's process id; nil if the server is not running.
function Postgres:pid()
    return tonumber(self:_ask("pid") or "")
end

function Postgres:running()
    return self:pid() ~= nil
end

--- The server's log so far.
function Postgres:log()
    if not self._guardian then return nil, "weir.testing: this server was closed" end
    return read_all(self.dir .. "/log")
end

--- Stops the server at once and removes its directory. Any number of times.
function Postgres:close()
    local guardian, replies = self._guardian, self._replies
    self._guardian, self._replies = nil, nil
    if replies then replies:close() end
    if guardian then guardian:close() end -- returns when the guardian has cleaned up
    return true
end

function Postgres:__tostring()
    local where = self._guardian and self.dir or "closed"
    return string.format("PostgreSQL %s (%s)", tostring(self.version), where)
end

Postgres.__close = Postgres.close
Postgres.__gc = Postgres.close

return {
    postgres = postgres,
    proxy = function(options)
        return require("weir.testing.proxy")(options) -- the engine is needed for that, and for nothing above
    end,
}
