-- The examples run as they stand, through the built command.

local lu = require "luaunit"
local testing = require "weir.testing"

local BIN = os.getenv "WEIR_BIN" or "build/weir"
local SOURCE = os.getenv "WEIR_SOURCE_DIR" or "."

local function quote(text)
    return "'" .. text:gsub("'", "'\\''") .. "'"
end

-- Runs an example; returns its exit code and all it said.
local function run(example, environment)
    local pipe = io.popen(("%s %s run %s/examples/%s 2>&1; echo \" $?\""):format(environment or "",
        quote(BIN), quote(SOURCE), example))
    local output, code = pipe:read("a"):match "^(.*) (%d+)\n$"
    pipe:close()
    return tonumber(code), output
end

local function width(line)
    return utf8.len(line) or #line
end

local function widest(output)
    local most = 0
    for line in output:gmatch "[^\n]+" do most = math.max(most, width(line)) end
    return most
end

local function all_well(output)
    lu.assertStrContains(output, "0 of them of another user")
    lu.assertNotStrContains(output, "✘")
    lu.assertStrContains(output, '"circuitState": "CLOSED"')
    lu.assertTrue(widest(output) <= 100, output)
    lu.assertNotStrContains(output, "\27", "no colours outside a terminal")
end

TestQuickstart = {}

function TestQuickstart:test_it_shows_loss_and_return_on_a_server_of_its_own()
    local began = os.time()
    local code, output = run "quickstart.lua"
    lu.assertEquals(code, 0, output)
    all_well(output)
    lu.assertTrue(os.time() - began < 30)
    lu.assertStrContains(output, "CLOSED -> OPEN: ")
    lu.assertStrContains(output, "OPEN -> HALF_OPEN: a background probe succeeded")
    lu.assertStrContains(output, "HALF_OPEN -> CLOSED: ")
    local directory = output:match "PostgreSQL %S+ in (%S+),"
    lu.assertNil(io.open(directory .. "/commands", "r+"))
end

function TestQuickstart:test_on_a_server_of_somebody_else_it_does_no_harm_and_leaves_nothing()
    local pg <close> = assert(testing.postgres())
    local left = "select nspname from pg_namespace where nspname !~ '^pg_' "
        .. "union all select rolname from pg_roles where rolname !~ '^pg_' order by 1"
    local before, pid = pg:sql(left), pg:pid()
    local code, output = run("quickstart.lua", "DATABASE_URL=" .. quote(pg:url()))
    lu.assertEquals(code, 0, output)
    all_well(output)
    lu.assertEquals(pg:pid(), pid)
    lu.assertEquals(pg:sql(left), before)
end

function TestQuickstart:test_a_login_without_rights_is_told_so()
    local pg <close> = assert(testing.postgres())
    pg:sql "create role nobody login"
    local code, output = run("quickstart.lua", "DATABASE_URL=" .. quote(pg:url "nobody"))
    lu.assertEquals(code, 1)
    lu.assertStrContains(output, "weir: quickstart: set up: server_error 42501")
    lu.assertNotStrContains(output, "traceback")
end

TestPolicies = {}

-- What an application does with a policy file, and what the file is to decide.
local check = [[
    local weir = require "weir"
    local options = dofile(arg[1])
    local db = assert(weir.open(options))
    assert(load(arg[2], "check", "t", setmetatable({ options = options }, { __index = _G })))()
]]

local function hold(file, condition)
    local path = os.tmpname()
    local script = assert(io.open(path, "w"))
    script:write(check)
    script:close()
    local pipe = io.popen(("%s run %s %s/examples/policies/%s %s 2>&1; echo \" $?\""):format(quote(BIN), path,
        quote(SOURCE), file, quote("assert(" .. condition .. ")")))
    local output = pipe:read "a"
    pipe:close()
    os.remove(path)
    lu.assertEquals(output, " 0\n", condition)
end

function TestPolicies:test_reads_that_say_so_go_to_the_replica()
    hold("replica.lua", [[options.route { readonly = true, context = "GET /contacts" } == "replica"]])
    hold("replica.lua", [[options.route { readonly = false, context = "GET /contacts" } == "primary"]])
    hold("replica.lua", [[options.route { readonly = true, context = "GET /cart" } == "primary"]])
end

function TestPolicies:test_only_what_is_worth_it_is_retried()
    local function failure(fields)
        return ("options.retry { %s, remaining = 5, backoff = function() return 0.1 end }"):format(fields)
    end
    hold("retries.lua", failure "class = 'safe', safe = true, attempt = 1" .. " == 0.1")
    hold("retries.lua", failure "class = 'safe', safe = true, attempt = 4" .. " == nil")
    hold("retries.lua", failure "class = 'safe', safe = true, attempt = 5, sqlstate = '40001'" .. " == 0.1")
    hold("retries.lua", failure "class = 'safe', safe = true, attempt = 2, sqlstate = '53300'" .. " == nil")
    hold("retries.lua", failure "class = 'unknown', attempt = 1" .. " == nil")
    hold("retries.lua", failure "class = 'unknown', attempt = 1, idempotent = true" .. " == 0.1")
    hold("retries.lua", failure "class = 'permanent', attempt = 1, idempotent = true" .. " == nil")
    hold("retries.lua", [[options.retry { class = 'safe', safe = true, attempt = 1, remaining = 0.15,
        backoff = function() return 0.1 end } == nil]])
end

function TestPolicies:test_labels_are_few()
    hold("labels.lua", [[options.label "GET /contacts/17?page=2" == "GET /contacts/:id"]])
    hold("labels.lua", [[options.label "GET /a/123e4567-e89b-12d3-a456-426614174000/b" == "GET /a/:id/b"]])
    hold("labels.lua", [[options.label "nightly: purge" == "nightly: purge"]])
end

os.exit(lu.LuaUnit.run())
