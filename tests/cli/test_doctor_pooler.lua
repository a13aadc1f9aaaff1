-- weir doctor behind PgBouncer: what it finds out by behaviour, in each mode.

local clinic = require "clinic"
local companions = require "companions"
local examination = require "examination"
local lu = require "luaunit"
local pooling = require "weir.doctor.pooling"

local pg

local function policy(pooler, declared)
    local backend = ("{ conninfo = %q, pooler = %s }"):format(pooler:url "app_service", tostring(declared))
    return clinic.policy(pg, "", { primary = backend })
end

local function declared_as_said(line)
    local value = line.remedy:match "pooler = (%a+)"
    lu.assertEquals(line.kind, "policy")
    return value == "true"
end

TestTransactionMode = {}

local function seen_declared_or_not(options)
    local pooler <close> = companions.bouncer(pg, options)
    local report = clinic.assert_trouble(policy(pooler, false), { "pooler.undeclared" })
    local line = report:line "pooler.undeclared"
    lu.assertEquals(line.level, "warn", "the engine notices this one by itself")
    local mended = clinic.assert_sound(pg, policy(pooler, declared_as_said(line)))
    lu.assertStrContains(mended:line("pooler.mode").found, "a transaction pooler, as the policy says")
    lu.assertStrContains(mended:line("prepared.safe").found, "unnamed")
    lu.assertStrContains(mended:line("capacity.pooler").found, "up to 20 connections to the pooler")
end

function TestTransactionMode:test_is_seen_and_has_to_be_declared()
    seen_declared_or_not {}
end

function TestTransactionMode:test_is_seen_where_it_goes_round()
    seen_declared_or_not { round_robin = true }
end

function TestTransactionMode:test_is_seen_where_it_has_one_connection()
    seen_declared_or_not { size = 1 }
end

TestSessionMode = {}

function TestSessionMode:test_needs_no_declaration()
    local pooler <close> = companions.bouncer(pg, { mode = "session" })
    local report = clinic.assert_trouble(policy(pooler, true), { "pooler.unneeded" })
    local line = report:line "pooler.unneeded"
    lu.assertStrContains(line.found, "for each session")
    local mended = clinic.assert_sound(pg, policy(pooler, declared_as_said(line)))
    lu.assertStrContains(mended:line("pooler.mode").found, "session mode")
end

TestDirectly = {}

function TestDirectly:test_pooler_is_not_needed()
    local backend = ("{ conninfo = %q, pooler = true }"):format(pg:url())
    local report = clinic.assert_trouble(clinic.policy(pg, "", { primary = backend }), { "pooler.unneeded" })
    lu.assertFalse(declared_as_said(report:line "pooler.unneeded"))
    local mended = examination.of(clinic.policy(pg))
    lu.assertStrContains(mended:line("prepared.safe").found, "stay with their session")
end

function TestDirectly:test_policies_without_prepared_statements_have_none()
    local report = clinic.assert_sound(pg, clinic.policy(pg, "prepared = 0"))
    lu.assertStrContains(report:line("prepared.safe").found, "unnamed")
end

TestFacts = {}

local function judged(facts)
    local lines = {}
    facts.backend = { name = "primary", pooler = facts.declared or false, conninfo = { said = {} } }
    for _, check in ipairs(pooling.checks) do
        check(facts, function(level, id)
            lines[#lines + 1] = level .. " " .. id
        end)
    end
    return lines
end

-- A pooler that passes on the server's own process id, so that the engine cannot notice it.
function TestFacts:test_a_transaction_pooler_that_hides_is_a_failure()
    lu.assertEquals(judged { pooler = { shown_pid = 7, pid = 7, moved = true, named = 2 } },
        { "fail pooler.undeclared", "fail prepared.unsafe" })
    lu.assertEquals(judged { pooler = { shown_pid = 7, pid = 7, moved = true, named = 0 }, declared = true },
        { "ok pooler.mode", "ok prepared.safe" })
end

function TestFacts:test_nothing_is_said_of_what_was_not_found_out()
    lu.assertEquals(judged { pooler = { shown_pid = 7 } }, {})
    lu.assertEquals(judged {}, {})
end

pg = clinic.open()
local code = lu.LuaUnit.run()
pg:close()
os.exit(code)
