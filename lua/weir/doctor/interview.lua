--- Connects as one client to one backend, and asks. What comes out is a table of facts, which the checks
-- judge:
--
--   client        name, user, role (ANON), max, options
--   backend       name, conninfo (see conninfo.lua), pooler
--   failure       why nobody could connect, an error; the rest is missing then
--   connect_seconds, round_trip_seconds
--   login         who we are, in the server's words
--   rows          question -> its rows (questions.lua)
--   refused       question -> the error
--   hangs         it stopped answering and was asked no more
--   clock         seconds the server is ahead, and how exact that is
--   as_client     for ANON: nil, or the error that the engine itself gives such a client
--   pooler        shown_pid and pid, moved: another process answered later, named: statements it has prepared

local conninfo = require "weir.doctor.conninfo"
local loop = require "weir.loop"
local questions = require "weir.doctor.questions"
local weir = require "weir"

local interview = {}

local CONTEXT = "weir doctor"
local GIVES_UP_AFTER = 2 -- questions in a row that ran out of time: the server hangs, and others would too
local PINNED = { "select pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true)" }

-- ---- engines ----------------------------------------------------------------------------------------------

-- An engine for the one client and backend, without guards that would answer in the server's place. What is
-- to be examined may be just what keeps an ANON client out, so it logs in without its role.
local function open(subject, client, prepared)
    local backend = { conninfo = subject.backend.text, pooler = subject.backend.pooler }
    return weir.open {
        name = "weir-doctor", backends = { it = backend }, clients = { ["weir-doctor"] = client },
        timeout = subject.timeout, connect_timeout = subject.timeout, retries = 0, prepared = prepared,
        breaker = { initial = "disabled" }, health = { interval = 0 }, reset = "never",
    }
end

local function open_plain(subject, prepared)
    local client = { user = subject.client.user, password = subject.client.password, max = 1,
        bypass_rls = true }
    return open(subject, client, prepared or 0)
end

-- ---- asking -----------------------------------------------------------------------------------------------

-- One round trip, in a transaction that can only read.
local function ask(handle, sql, values)
    local statement = { sql, n = 1 }
    for i, value in ipairs(values or {}) do statement[i + 1], statement.n = value, i + 1 end
    local results, err = handle:pipeline(CONTEXT, { PINNED, statement })
    if not results then return nil, err end
    return results[2]
end

local function reader(db)
    return db:service():with { readonly = true }
end

local function ask_one(subject, handle, question)
    local rows, err = ask(handle, question.sql, question.values and question.values(subject))
    subject.rows[question.name], subject.refused[question.name] = rows, err
    if question.name == "server" and rows then subject.login = rows[1].login end
    return err and err.code == "timeout"
end

local function ask_all(subject, handle)
    local timeouts = 0
    for _, question in ipairs(questions.list) do
        if timeouts >= GIVES_UP_AFTER then
            subject.hangs = true
            return
        end
        if not question.when or question.when(subject) then
            timeouts = ask_one(subject, handle, question) and timeouts + 1 or 0
        end
    end
end

-- ---- connecting, and the clock ----------------------------------------------------------------------------

local function connect(subject, db, handle)
    local began = loop.now()
    local _, failure = handle:query(CONTEXT, "select 1")
    local connected = loop.now()
    if failure then
        subject.failure = failure
        return false
    end
    local _, silence = handle:query(CONTEXT, "select 1")
    if silence then
        subject.failure = silence
        return false
    end
    subject.round_trip_seconds = loop.now() - connected
    subject.connect_seconds = math.max(connected - began - subject.round_trip_seconds, 0)
    subject.pooler = { shown_pid = db:calls(1)[1].timeline[1].backend_pid }
    return true
end

-- The server's clock was read somewhere between the two readings of ours.
local function compare_clocks(subject, handle, wall_clock)
    local before = wall_clock()
    local rows = ask(handle, "select extract(epoch from clock_timestamp())::float8 as now")
    local after = wall_clock()
    if rows then
        subject.clock = { ahead = rows[1].now - (before + after) / 2, exact_to = (after - before) / 2 }
    end
end

-- ---- poolers ----------------------------------------------------------------------------------------------

-- The process that serves a transaction begun now, and how to end it.
local function hold(handle)
    local unit, err = handle:begin(CONTEXT)
    if not unit then return nil, err end
    local rows, failure = unit:query "select pg_catalog.pg_backend_pid() as pid"
    if not rows then
        unit:rollback()
        return nil, failure
    end
    return rows[1].pid, unit
end

-- Both in a transaction, and the first one ended first or last: whether the pooler takes the server
-- connection that has been idle longest or shortest, in one of the orders it is another one.
local function moves(one, other, first_ends_first)
    local pid, unit = hold(one)
    if not pid then return false end
    local pid_other, unit_other = hold(other)
    local ends = first_ends_first and { unit, unit_other } or { unit_other, unit }
    for _, ended in ipairs(pid_other and ends or { unit }) do ended:commit() end
    local again, unit_again = hold(one)
    if not again then return false end
    unit_again:commit()
    if pid_other == nil then return false end
    return again ~= pid or pid_other == pid
end

-- One after the other. Most poolers lend first what came back last, and one with a single server connection
-- has
-- no choice.
local function shares(one, other)
    local pid, unit = hold(one)
    if pid then unit:commit() end
    local pid_other, unit_other = hold(other)
    if pid_other then unit_other:commit() end
    return pid ~= nil and pid == pid_other
end

local function look_for_pooler(subject, handle)
    local db = open_plain(subject)
    if not db then return end
    local other = reader(db)
    local seen = subject.pooler
    seen.pid = subject.rows.server and subject.rows.server[1].pid
    -- Where a second connection cannot be had nothing can be told by it.
    local there = other:query(CONTEXT, "select 1")
    seen.moved = there ~= nil and
        (shares(handle, other) or moves(handle, other, true) or moves(handle, other, false))
    db:close()
end

-- As the policy has it: does what was prepared stay with the session?
local function look_for_prepared(subject, prepared)
    local db = open_plain(subject, prepared)
    if not db then return end
    local handle = reader(db)
    local sql = "select count(*)::int as named from pg_catalog.pg_prepared_statements"
    for _ = 1, 3 do
        local rows = handle:query(CONTEXT, sql)
        if rows then subject.pooler.named = rows[1].named end
    end
    db:close()
end

-- ---- as the engine would ----------------------------------------------------------------------------------

local function try_as_client(subject)
    local of = subject.client
    if not of.role then return end
    local db, err = open(subject, { user = of.user, password = of.password, max = 1, role = of.role }, 0)
    if not db then
        subject.as_client = err
        return
    end
    local handle = db:anon { sub = "weir-doctor" }:with { readonly = true }
    local _, failure = handle:query(CONTEXT, "select 1")
    subject.as_client = failure
    db:close()
end

-- ---- the whole --------------------------------------------------------------------------------------------

local function examine(subject, db, wall_clock)
    local handle = reader(db)
    if not connect(subject, db, handle) then return end
    ask_all(subject, handle)
    if subject.hangs then return end
    compare_clocks(subject, handle, wall_clock)
    look_for_pooler(subject, handle)
    look_for_prepared(subject, subject.options.prepared or 256)
    try_as_client(subject)
end

--- Asks about one client on one backend. Takes a few times `timeout` at most, whatever the server does.
-- @param wall_clock  function giving seconds since 1970
-- @return the facts
function interview.hold(subject, wall_clock)
    subject.rows, subject.refused = {}, {}
    local db, err = open_plain(subject)
    if not db then
        subject.failure = err
        return subject
    end
    local ok, raised = pcall(examine, subject, db, wall_clock)
    db:close()
    if not ok then subject.failure = { code = "raised", message = tostring(raised) } end
    return subject
end

--- Who is to be asked about: each client of the options on each backend, in order of their names.
function interview.subjects(options, about)
    local subjects = {}
    local function names_of(map)
        local names = {}
        for name in pairs(map) do names[#names + 1] = name end
        table.sort(names)
        return names
    end
    for _, backend_name in ipairs(names_of(options.backends)) do
        local backend = options.backends[backend_name]
        if type(backend) == "string" then backend = { conninfo = backend } end
        for _, client_name in ipairs(names_of(options.clients)) do
            local client = options.clients[client_name]
            subjects[#subjects + 1] = {
                options = options, timeout = about.timeout, workers = about.workers,
                client = {
                    name = client_name, user = client.user, password = client.password, role = client.role,
                    max = client.max or 10,
                },
                backend = {
                    name = backend_name, text = backend.conninfo, pooler = backend.pooler or false,
                    conninfo = conninfo.parse(backend.conninfo),
                },
            }
        end
    end
    return subjects
end

return interview
