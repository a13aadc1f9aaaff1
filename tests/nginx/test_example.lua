-- examples/nginx as its reader would use it: one command, then the lines it prints.

local lu = require "luaunit"
local json = require "weir.json"
local socket = require "socket"

local source = assert(os.getenv "WEIR_SOURCE_DIR")

local function sh(command)
    local pipe = io.popen(command .. " 2>&1")
    local output = pipe:read "a"
    local _, _, code = pipe:close()
    return output, code
end

-- Orphans of a container stay as zombies.
local function lives(pid)
    return sh(("sed 's/.*) //' /proc/%d/stat"):format(pid)):match "^[DRSTt]" ~= nil
end

local function free_port()
    local server = assert(socket.bind("127.0.0.1", 0))
    local _, port = server:getsockname()
    server:close()
    return port
end

TestExample = {}

-- `before` the command, in the same line of the shell.
function TestExample:start(before)
    local command = "env -u LUA_PATH -u LUA_CPATH WEIR_BUILD='%s' setsid %s sh '%s/examples/nginx/start.sh' '%s/it' %d "
        .. ">'%s/out' 2>&1 & echo $!"
    command = command:format(os.getenv "WEIR_BUILD_DIR", before, source, self.folder, self.port, self.folder)
    local pipe = io.popen(command)
    self.pid = tonumber(pipe:read "l")
    pipe:close()
    for _ = 1, 3000 do
        if self:said():find("Ctrl-C ends", 1, true) then return end
        if not lives(self.pid) then break end
        socket.sleep(0.02)
    end
    error("it did not start: " .. self:said())
end

function TestExample:setUp()
    self.folder = sh "mktemp -d":gsub("%s+$", "")
    sh(("chmod 755 %s"):format(self.folder)) -- for the user of PostgreSQL
    self.port = free_port()
end

function TestExample:said()
    local file = io.open(self.folder .. "/out")
    local text = file and file:read "a" or ""
    if file then file:close() end
    return text
end

function TestExample:tearDown()
    if self.pid then sh(("kill -TERM %d"):format(self.pid)) end -- not INT, which a shell's background jobs ignore
    for _ = 1, 1000 do
        if not self.pid or not lives(self.pid) then break end
        socket.sleep(0.02)
    end
    local left = sh(("pgrep -f '%s/[i]t' || true"):format(self.folder))
    sh(("rm -rf '%s'"):format(self.folder))
    lu.assertEquals(left, "")
end

-- The lines that are printed, each with -i for the status.
function TestExample:answers()
    local answers = {}
    for line in self:said():gmatch "\n  curl ([^\n]+)" do
        local text = sh("curl -s -i -m 10 " .. line)
        answers[#answers + 1] = { status = tonumber(text:match "^HTTP/1.1 (%d+)"), body = text:match "\r\n\r\n(.*)$" }
    end
    return answers
end

function TestExample:test_what_it_prints_can_be_tried()
    self:start ""
    local list, added, counted, health, metrics = table.unpack(self:answers())
    lu.assertEquals({ list.status, added.status, counted.status, health.status, metrics.status },
        { 200, 200, 200, 200, 200 })
    lu.assertEquals(json.decode(list.body), { { id = 1, name = "Charles" }, { id = 2, name = "Mary" } })
    lu.assertStrContains(added.body, '"name":"Lord"')
    lu.assertStrContains(counted.body, '{"contacts":4}')
    lu.assertStrContains(health.body, '"status":"healthy"')
    lu.assertStrContains(metrics.body, 'label="POST /api/contacts",outcome="ok"} 1')
    local url, claims = ("http://127.0.0.1:%d"):format(self.port), self:said():match "X%-Claims: ([^']+)'"
    lu.assertStrContains(sh(("curl -s -i %s/api/contacts"):format(url)), "HTTP/1.1 401")
    lu.assertStrContains(sh(("curl -s -i -X DELETE -H 'X-Claims: %s' %s/api/contacts"):format(claims, url)), "HTTP/1.1 405")
    lu.assertStrContains(sh(("curl -s -I -H 'X-Claims: %s' %s/api/contacts"):format(claims, url)), "HTTP/1.1 200")
    lu.assertStrContains(sh(("curl -s -i -H 'X-Claims: e30=.AAAA' %s/api/contacts"):format(url)), "HTTP/1.1 401")
    lu.assertStrContains(sh(("curl -s -i %s/weir/"):format(url)), "<title>weir</title>")
    local reload = self:said():match "\n  (nginx %-p [^\n]+ %-s reload)\n"
    sh(("sed -i 's/timeout = 5/timeout = 4/' %s/it/policy.lua; %s"):format(self.folder, reload))
    for _ = 1, 250 do
        if sh(("curl -s %s/weir/events.json"):format(url)):find("policy 2", 1, true) then break end
        socket.sleep(0.02)
    end
    lu.assertStrContains(sh(("curl -s %s/weir/events.json"):format(url)), "policy 2")
    lu.assertStrContains(sh(("curl -s -I -H 'X-Claims: %s' %s/api/contacts"):format(claims, url)), "HTTP/1.1 200")
    local log = io.open(self.folder .. "/it/logs/error.log"):read "a"
    lu.assertNil(log:match "%[alert%]" or log:match "%[emerg%]" or log:match "%[error%]", log)
end

-- The source is root's alone, as what is in root's home is: the same files at the same place, for this process.
local private = [[
unshare -m --propagation private sh -ec '
    keep=$1 source=$2; shift 2
    mount --bind "$source" "$keep"
    mount -t tmpfs -o mode=700 none "$source"
    for file in "$keep"/*; do
        copy=$source/${file##*/}
        if [ -d "$file" ]; then mkdir "$copy"; else : >"$copy"; fi
        mount --bind "$file" "$copy"
    done
    exec "$@"
' sh]]

function TestExample:test_a_source_that_the_workers_may_not_read()
    sh(("mkdir '%s/keep'"):format(self.folder))
    local before = ("%s '%s/keep' '%s'"):format(private, self.folder, source)
    local said, code = sh(before .. " true")
    lu.skipIf(code ~= 0, "nothing can be mounted here: " .. said)
    self:start(before)
    for _, answer in ipairs(self:answers()) do lu.assertEquals(answer.status, 200, answer.body) end
end

function TestExample:test_a_folder_that_the_workers_may_not_enter_is_refused()
    sh(("chmod 700 '%s'"):format(self.folder))
    local ok, why = pcall(self.start, self, "")
    lu.assertFalse(ok)
    lu.assertStrContains(why, "nginx's workers are the user nobody")
end

os.exit(lu.LuaUnit.run())
