-- Runs one of the Lua test files inside a live nginx, in the content handler of a request: lua5.4 inside.lua FILE.
-- What the file prints is this program's output.

local socket = require "socket"
local unix = require "socket.unix"

local source, build = os.getenv "WEIR_SOURCE_DIR", os.getenv "WEIR_BUILD_DIR"
local file = assert(arg[1], "which file?")

local configuration = [[
load_module /usr/lib/nginx/modules/ndk_http_module.so;
load_module /usr/lib/nginx/modules/ngx_http_lua_module.so;
load_module @BUILD@/ngx_http_weir_module.so;
user root;
daemon off;
worker_processes 1;
pid @FOLDER@/pid;
error_log @FOLDER@/error.log notice;
env WEIR_SOURCE_DIR; env WEIR_BUILD_DIR; env WEIR_BIN; env LUAUNIT_OUTPUT; env PATH; env HOME; env TMPDIR;
events { worker_connections 4096; }
http {
    access_log off;
    client_body_temp_path @FOLDER@/t1; proxy_temp_path @FOLDER@/t2; fastcgi_temp_path @FOLDER@/t3;
    uwsgi_temp_path @FOLDER@/t4; scgi_temp_path @FOLDER@/t5;
    lua_package_path "@SOURCE@/tests/lua/?.lua;@SOURCE@/tests/support/?.lua;@SOURCE@/tests/sim/?.lua;;";
    server {
        listen unix:@FOLDER@/http;
        location / {
            content_by_lua_block {
                -- luaunit ends the program with os.exit, and prints with print.
                local over = {}
                os.exit = function(code) over.code = code == true and 0 or code or 0 error(over, 0) end
                print = function(...)
                    local parts = {}
                    for i = 1, select("#", ...) do parts[i] = tostring((select(i, ...))) end
                    io.stdout:write(table.concat(parts, "\t"), "\n")
                end
                arg = { [0] = ngx.var.arg_file }
                local ok, err = pcall(assert(loadfile(ngx.var.arg_file))) -- dofile is C, and would not let calls wait
                if not ok and err ~= over then io.stdout:write("Bail out! ", tostring(err), "\n") over.code = 1 end
                io.stdout:flush()
                ngx.say(over.code)
            }
        }
    }
}
]]

local function read(path)
    local handle = io.open(path)
    if not handle then return "" end
    local text = handle:read "a"
    handle:close()
    return text
end

local function connect(path)
    for _ = 1, 500 do
        local client = assert(unix())
        if client:connect(path) then return client end
        client:close()
        socket.sleep(0.01)
    end
    error("nginx did not start: " .. path)
end

local function ask(folder)
    local client = connect(folder .. "/http")
    client:settimeout(nil)
    client:send(("GET /?file=%s HTTP/1.0\r\n\r\n"):format(file))
    -- Not to the end: what the tests start inside the worker inherits the connection, and may hold it open.
    local line = client:receive "*l"
    while line and line ~= "" do line = client:receive "*l" end
    local code = client:receive "*l"
    client:close()
    return tonumber(code)
end

-- Anything at alert or worse, and anything that says a worker fell over.
local function alerts(log)
    local found = {}
    for line in log:gmatch "[^\n]+" do
        if line:find "%[alert%]" or line:find "%[emerg%]" or line:find "%[crit%]" then found[#found + 1] = line end
    end
    return table.concat(found, "\n")
end

local pipe = io.popen "mktemp -d"
local folder = pipe:read "l"
pipe:close()
local text = configuration:gsub("@(%u+)@", { FOLDER = folder, BUILD = build, SOURCE = source })
local conf = assert(io.open(folder .. "/nginx.conf", "w"))
conf:write(text)
conf:close()

io.stdout:flush()
os.execute(("nginx -p %s -c %s/nginx.conf & echo $! > %s/starter"):format(folder, folder, folder))
local ok, code = pcall(ask, folder)
os.execute(("kill -QUIT $(cat %s/pid 2>/dev/null) 2>/dev/null; while [ -e %s/pid ]; do sleep 0.01; done"):format(folder, folder))
local found = alerts(read(folder .. "/error.log"))
if found ~= "" then print("Bail out! nginx complains:\n" .. found) end
if not ok or not code then io.stderr:write(tostring(code), "\n", read(folder .. "/error.log")) end
os.execute("rm -rf " .. folder)
os.exit(ok and code == 0 and found == "" and 0 or 1)
