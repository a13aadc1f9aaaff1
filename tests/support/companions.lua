--- What stands around a server of weir.testing in the doctor's tests: a PgBouncer in front of it, a standby
-- behind it. Each has a private directory and socket, and goes down with the test process.

local companions = {}

local Companion = {}
Companion.__index = Companion

local function quote(text)
    return "'" .. text:gsub("'", "'\\''") .. "'"
end

local function output_of(command)
    local pipe = io.popen(command)
    local text = pipe:read "a"
    pipe:close()
    return (text:gsub("%s+$", ""))
end

local AS_POSTGRES = "setpriv --reuid=postgres --regid=postgres --init-groups --reset-env"
local is_root = output_of "id -u" == "0"

local function unprivileged(command)
    return is_root and ("%s %s"):format(AS_POSTGRES, command) or command
end

local function new_directory()
    local path = output_of "mktemp -d /tmp/weir-doctor-XXXXXX"
    if is_root then os.execute("chown postgres " .. path) end
    return path
end

-- The shell that runs it waits for the end of its input, which comes when we close it or die.
local function start(self, command)
    local script = ("%s >%s/log 2>&1 & p=$!; cat >/dev/null; kill %s $p; wait $p; rm -rf %s"):format(
        unprivileged(command), self.dir, self.signal, self.dir)
    self.guardian = io.popen(script, "w")
    return self
end

local function is_up(self)
    return os.execute(("env -i PATH=%s PGCONNECT_TIMEOUT=2 psql -X -q -A -t -d %s -c 'select 1' " ..
        ">/dev/null 2>&1"):format(
        quote(os.getenv "PATH"), quote(self:url(self.tried)))) == true
end

local function wait_until_up(self)
    for _ = 1, 400 do
        if is_up(self) then return self end
        os.execute "sleep 0.05"
    end
    local log = io.open(self.dir .. "/log"):read "a"
    self:close()
    error("it did not start:\n" .. log)
end

function Companion:url(user)
    return ("postgresql://%s@/postgres?host=%s&port=%d"):format(user, self.dir, self.port)
end

--- Runs SQL as superuser. Returns what psql printed.
function Companion:sql(text)
    return output_of(("env -i PATH=%s psql -X -q -A -t -v ON_ERROR_STOP=1 -d %s -c %s 2>&1"):format(
        quote(os.getenv "PATH"), quote(self:url "postgres"), quote(text)))
end

function Companion:close()
    if self.guardian then self.guardian:close() end
    self.guardian = nil
end

Companion.__close = Companion.close
Companion.__gc = Companion.close

local function write_file(path, text)
    local file = assert(io.open(path, "w"))
    file:write(text)
    file:close()
end

--- A PgBouncer in front of `pg`. Options: mode ("transaction"), size (4).
function companions.bouncer(pg, options)
    options = options or {}
    local self = setmetatable({ dir = new_directory(), port = 6432, signal = "-TERM",
        tried = "app_service" }, Companion)
    local port = pg.port
    write_file(self.dir .. "/ini", ([[
[databases]
postgres = host=%s port=%d dbname=postgres
[pgbouncer]
listen_addr =
listen_port = 6432
unix_socket_dir = %s
auth_type = trust
auth_file = %s/users
server_login_retry = 0.1
server_round_robin = %d
pool_mode = %s
default_pool_size = %d
]]):format(pg.dir, port, self.dir, self.dir, options.round_robin and 1 or 0, options.mode or "transaction",
        options.size or 4))
    write_file(self.dir .. "/users", '"app_anon" ""\n"app_service" ""\n')
    start(self, ("/usr/sbin/pgbouncer %s/ini"):format(self.dir))
    return wait_until_up(self)
end

--- A standby that streams from `pg`, whose pg_hba.conf must let replication in.
function companions.standby(pg)
    local self = setmetatable({ dir = new_directory(), port = 5432, signal = "-QUIT", tried = "postgres" },
        Companion)
    local data = self.dir .. "/data"
    local copied = os.execute(unprivileged(("%s/pg_basebackup -D %s -h %s -p %d -U postgres -R -X stream " ..
        "-c fast"):format(
        pg.bin, data, pg.dir, pg.port)))
    if not copied then
        os.execute("rm -rf " .. self.dir)
        error "the primary could not be copied"
    end
    start(self, ("%s/postgres -D %s -c listen_addresses= -c unix_socket_directories=%s -c port=5432"):format(
        pg.bin, data, self.dir))
    return wait_until_up(self)
end

return companions
