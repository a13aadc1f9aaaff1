-- A `weir serve` for tests: started and stopped here, asked with sockets of our own where a client has to misbehave.

local socket = require "socket"

local serving = {}

local BIN = os.getenv "WEIR_BIN" or "build/weir"
local PATIENCE = 20 -- seconds until something that has to happen counts as not happening

local function quote(text)
    return "'" .. text:gsub("'", "'\\''") .. "'"
end
serving.quote = quote

function serving.folder()
    local pipe = io.popen "mktemp -d"
    local path = pipe:read "l"
    pipe:close()
    return path
end

function serving.write(path, text)
    local file = assert(io.open(path, "wb"))
    file:write(text)
    file:close()
    return path
end

function serving.read(path)
    local file = io.open(path, "rb")
    if not file then return "" end
    local text = file:read "a"
    file:close()
    return text
end

--- Until done() gives something, which is returned.
function serving.wait(done, what, seconds)
    local till = socket.gettime() + (seconds or PATIENCE)
    repeat
        local result = done()
        if result then return result end
        socket.sleep(0.02)
    until socket.gettime() > till
    error("in vain: " .. (what or "?"), 2)
end

-- ---- the process ---------------------------------------------------------------------------------------------

local Server = {}
Server.__index = Server

function Server:said()
    return serving.read(self.folder .. "/out"), serving.read(self.folder .. "/err")
end

function Server:signal(name)
    self.told_to_end = name == "TERM"
    os.execute(("kill -s %s %d 2>/dev/null"):format(name, self.pid))
end

-- Its exit code, once it has ended.
function Server:code()
    return serving.wait(function() return tonumber(serving.read(self.folder .. "/code")) end, "the end of weir serve")
end

function Server:stop()
    if self.code_told then return self.code_told end
    if not self.told_to_end then self:signal "TERM" end
    self.code_told = self:code()
    os.execute("rm -rf " .. quote(self.folder))
    return self.code_told
end

function Server:kill()
    local area = self:said():match "area (/%S+/weir%-serve%-%S+)" -- of its own: nobody else removes it now
    self:signal "KILL"
    if area then os.remove(area) end
    os.execute("rm -rf " .. quote(self.folder))
end

--- Starts `weir serve`. policy: its text, nil for none; arguments: what follows, `--listen 0` if it holds no --listen.
function serving.start(policy, arguments)
    local self = setmetatable({ folder = serving.folder() }, Server)
    self.policy = serving.write(self.folder .. "/policy.lua", policy or "")
    arguments = (policy and "policy.lua " or "") .. (arguments or "")
    if not arguments:find("--listen", 1, true) then arguments = "--listen 0 " .. arguments end
    os.execute(([[cd %s; { env --default-signal=INT,TERM,HUP %s serve %s >out 2>err </dev/null & echo $! >pid
        wait $!; echo $? >code; } >/dev/null 2>&1 &]]):format(quote(self.folder), quote(BIN), arguments))
    self.pid = serving.wait(function() return tonumber(serving.read(self.folder .. "/pid")) end, "its process")
    return self
end

--- The same, and waits until it listens.
function serving.serve(policy, arguments)
    local self = serving.start(policy, arguments)
    serving.wait(function()
        if serving.read(self.folder .. "/code") ~= "" then error("weir serve ended: " .. select(2, self:said()), 0) end
        local out = self:said()
        self.url, self.port = out:match "on (http://127%.0%.0%.1:(%d+)/)"
        self.path = out:match "on unix:([^,\n]*)"
        return self.url or self.path
    end, "its address")
    return self
end

-- ---- asking ----------------------------------------------------------------------------------------------------

--- A connection of our own; nil and why.
function Server:connect()
    local connection = socket.tcp()
    connection:settimeout(PATIENCE)
    local ok, why = connection:connect("127.0.0.1", tonumber(self.port))
    if not ok then
        connection:close()
        return nil, why
    end
    return connection
end

--- Sends bytes and reads one answer: status, headers (small letters), body. nil and why if it does not come whole.
function serving.exchange(connection, bytes)
    local sent, why = connection:send(bytes)
    if not sent then return nil, why end
    local line, fault = connection:receive "*l"
    if not line then return nil, fault end
    local headers = {}
    for header in function() return connection:receive "*l" end do
        if header == "" then break end
        local name, value = header:match "^(.-):%s*(.*)$"
        headers[name:lower()] = value
    end
    local length = tonumber(headers["content-length"])
    local body = ""
    if length and not bytes:find "^HEAD" then body = connection:receive(length) end
    return tonumber(line:match "^HTTP/1%.1 (%d+)"), headers, body
end

function serving.request(path, headers, method)
    local lines = { ("%s %s HTTP/1.1"):format(method or "GET", path), "Host: localhost" }
    for name, value in pairs(headers or {}) do lines[#lines + 1] = name .. ": " .. value end
    return table.concat(lines, "\r\n") .. "\r\n\r\n"
end

--- One request on a connection of its own: status, headers, body.
function Server:get(path, headers, method)
    local connection = assert(self:connect())
    local status, answered, body = serving.exchange(connection, serving.request(path, headers, method))
    connection:close()
    return status, answered, body
end

return serving
