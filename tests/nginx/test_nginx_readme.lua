-- The configuration and the script that README gives for nginx, with nothing but the paths changed.

local lu = require "luaunit"
local socket = require "socket"
local testing = require "weir.testing"
local unix = require "socket.unix"

local source, build = assert(os.getenv "WEIR_SOURCE_DIR"), assert(os.getenv "WEIR_BUILD_DIR")

local function read(path)
    local file = io.open(path)
    if not file then return "" end
    local text = file:read "a"
    file:close()
    return text
end

local function write(path, text)
    local file = assert(io.open(path, "w"))
    file:write(text)
    file:close()
end

local function sh(command)
    local pipe = io.popen(command .. " 2>&1")
    local output = pipe:read "a"
    pipe:close()
    return output
end

local function block(readme, language)
    local text = readme:match("\n```" .. language .. "\n(.-)\n```")
    return text or error("README has no block " .. language)
end

-- The table of the first script, as README says.
local function policy(readme)
    local first = block(readme, "lua")
    return "return " .. first:match "weir.open (%b{})"
end

local function configuration(readme, folder)
    local text = block(readme, "nginx")
    local replaced
    local function replace(from, to)
        text, replaced = text:gsub(from:gsub("%p", "%%%0"), (to:gsub("%%", "%%%%")))
        lu.assertTrue(replaced > 0, "README's configuration has no " .. from)
    end
    replace("/usr/local/lib/nginx/modules/ngx_http_weir_module.so", build .. "/ngx_http_weir_module.so")
    replace("load_module modules/", "load_module /usr/lib/nginx/modules/")
    replace("/run/weir/area", folder .. "/run/area")
    replace("/etc/nginx/weir", folder)
    replace("listen 127.0.0.1:8080", ("listen unix:%s/http"):format(folder))
    replace("events {}", ("user root; events {} pid %s/pid; error_log %s/error.log; daemon off;"):format(folder, folder))
    replace("http {", ("http { client_body_temp_path %s/1; proxy_temp_path %s/2; fastcgi_temp_path %s/3; "
        .. "uwsgi_temp_path %s/4; scgi_temp_path %s/5; access_log off;"):format(folder, folder, folder, folder, folder))
    return text
end

local function get(folder, path)
    local client
    for _ = 1, 500 do
        client = assert(unix())
        if client:connect(folder .. "/http") then break end
        client:close()
        socket.sleep(0.01)
    end
    client:settimeout(20)
    client:send(("GET %s HTTP/1.0\r\nHost: x\r\n\r\n"):format(path))
    local answer = client:receive "*a" or ""
    client:close()
    return tonumber(answer:match "^HTTP/1.1 (%d+)"), answer:match "\r\n\r\n(.*)$"
end

TestReadme = {}

function TestReadme:setUp()
    self.readme = read(source .. "/README.md")
    self.server = assert(testing.postgres())
    assert(self.server:sql(block(self.readme, "sql")))
    self.folder = sh "mktemp -d":gsub("%s+$", "")
    sh("chmod 755 " .. self.folder)
    write(self.folder .. "/policy.lua", policy(self.readme))
    write(self.folder .. "/contacts.lua", block(self.readme, "lua nginx"))
    write(self.folder .. "/nginx.conf", configuration(self.readme, self.folder))
end

function TestReadme:tearDown()
    sh(("kill -QUIT $(cat %s/pid); while [ -e %s/pid ]; do sleep 0.01; done"):format(self.folder, self.folder))
    self.server:close()
    sh("rm -rf " .. self.folder)
end

function TestReadme:test_its_configuration_serves_as_it_says()
    local start = "DATABASE_URL='%s' nginx -p %s -c %s/nginx.conf"
    start = start:format(self.server:url(), self.folder, self.folder)
    lu.assertStrContains(sh(start .. " -t"), "test is successful")
    os.execute(start .. " &")
    lu.assertEquals({ get(self.folder, "/contacts?user=ada") }, { 200, "Charles\nMary\n" })
    lu.assertEquals({ get(self.folder, "/contacts?user=grace") }, { 200, "Howard\n" })
    lu.assertEquals((get(self.folder, "/health")), 200)
    lu.assertEquals((get(self.folder, "/weir/metrics")), 403) -- over a Unix socket nobody is 127.0.0.1
    self.server:stop "immediate"
    local status, body = get(self.folder, "/contacts?user=ada")
    lu.assertEquals(status, 503)
    lu.assertStrContains(body, '"status":503')
    lu.assertNil(read(self.folder .. "/error.log"):match "%[alert%][^\n]*" )
end

os.exit(lu.LuaUnit.run())
