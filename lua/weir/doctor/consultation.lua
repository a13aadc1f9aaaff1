--- The command `weir doctor`: reads its arguments and the policy, asks, judges, prints.
--
-- `host` is what it needs of the system, given by command_doctor.c.

local capacity = require "weir.doctor.capacity"
local catalogs = require "weir.doctor.catalogs"
local chart_of = require "weir.doctor.chart"
local interview = require "weir.doctor.interview"
local loop = require "weir.loop"
local patient = require "weir.doctor.patient"
local phrases = require "weir.doctor.phrases"
local policytrial = require "weir.doctor.policytrial"
local pooling = require "weir.doctor.pooling"
local reach = require "weir.doctor.reach"
local roles = require "weir.doctor.roles"
local rowsecurity = require "weir.doctor.rowsecurity"
local server = require "weir.doctor.server"
local timeouts = require "weir.doctor.timeouts"
local writeup = require "weir.doctor.writeup"

local consultation = {}

local GOOD, FAILED, USAGE = 0, 1, 2

-- Groups of checks, in the order in which they are told.
local of_backend = { server, pooling, capacity }
local of_client = { reach, catalogs, roles, rowsecurity, timeouts }

-- ---- arguments --------------------------------------------------------------------------------------------

local flags = { ["--json"] = "json", ["--strict"] = "strict" }

local function number_option(options, name, key, text, least, most, whole)
    local value = tonumber(text or "")
    if not value or not (value >= least and value <= most) or whole and value % 1 ~= 0 then
        return nil, ("%s wants a %s from %g to %g%s"):format(name, whole and "whole number" or "number",
            least, most,
            text and (", not '%s'"):format(text) or "")
    end
    options[key] = value
    return true
end

local valued = {
    ["--workers"] = function(options, text)
        return number_option(options, "--workers", "workers", text, 1, 100000, true)
    end,
    ["--timeout"] = function(options, text)
        return number_option(options, "--timeout", "timeout", text, 0.1, 600)
    end,
}

local function take_file(options, text)
    if options.file then return nil, ("one policy at a time: '%s' and '%s'"):format(options.file, text) end
    options.file = text
    return true
end

local function parse(arguments)
    local options, i = { workers = 1, timeout = 5 }, 1
    while i <= #arguments do
        local text = arguments[i]
        local name, value = text:match "^(%-%-[%w-]+)=(.*)$"
        name = name or text
        local ok, why = true, nil
        if options.only_files or not text:find "^%-." then
            ok, why = take_file(options, text)
        elseif text == "--" then
            options.only_files = true
        elseif flags[text] then
            options[flags[text]] = true
        elseif valued[name] then
            if not value then i, value = i + 1, arguments[i + 1] end
            ok, why = valued[name](options, value)
        else
            ok, why = nil, ("unknown option '%s'"):format(text)
        end
        if not ok then return nil, why end
        i = i + 1
    end
    if not options.file then return nil, "a policy is missing (usage: weir doctor [OPTIONS] POLICY.lua)" end
    return options
end

-- ---- looking ----------------------------------------------------------------------------------------------

local function ask_everybody(subjects, wall_clock)
    local tasks = {}
    for i, subject in ipairs(subjects) do
        tasks[i] = loop.spawn(interview.hold, subject, wall_clock)
    end
    for _, task in ipairs(tasks) do task:join() end
end

local function apply(groups, facts, add, others)
    for _, group in ipairs(groups) do
        for _, check in ipairs(group) do check(facts, add, others) end
    end
end

-- Who tells about the backend: the first client that got in, SERVICE before ANON, for it may see more.
local function spokesman(subjects)
    local best = subjects[1]
    for _, subject in ipairs(subjects) do
        local better = not subject.failure and (best.failure or best.client.role and not subject.client.role)
        if better then best = subject end
    end
    return best
end

-- The subjects of each backend, in order, and who speaks for each.
local function by_backend(subjects)
    local list, of = {}, {}
    for _, subject in ipairs(subjects) do
        local name = subject.backend.name
        if not of[name] then
            of[name] = {}
            list[#list + 1] = of[name]
        end
        table.insert(of[name], subject)
        subject.siblings = of[name]
    end
    local spokesmen = {}
    for i, group in ipairs(list) do spokesmen[i] = spokesman(group) end
    return list, spokesmen
end

local function secrets_of(policy, subjects)
    local secrets = {}
    for _, client in pairs(policy.clients) do secrets[#secrets + 1] = client.password end
    for _, subject in ipairs(subjects) do
        secrets[#secrets + 1] = subject.backend.conninfo.password
        secrets[#secrets + 1] = subject.backend.conninfo.sslpassword
    end
    return secrets
end

local function judge_policy(chart, policy, options, subjects, spokesmen)
    local connections
    for _, facts in ipairs(spokesmen) do
        local usable = capacity.usable(facts)
        if usable then connections = math.min(connections or usable, usable) end
    end
    apply({ policytrial.checks }, {
        options = policy, workers = options.workers, timeout = options.timeout, backends = spokesmen,
        connections = connections, secrets = secrets_of(policy, subjects),
    }, chart:at {})
end

local function groups_of(list, key)
    local groups = {}
    for _, module in ipairs(list) do groups[#groups + 1] = module[key or "checks"] end
    return groups
end

local function judge(chart, subjects)
    local list, spokesmen = by_backend(subjects)
    for i, group in ipairs(list) do
        apply(groups_of(of_backend), spokesmen[i], chart:at { backend = group[1].backend.name }, spokesmen)
        for _, facts in ipairs(group) do
            local add = chart:at { backend = facts.backend.name, client = facts.client.name }
            apply(groups_of(of_client), facts, add)
            apply({ capacity.checks_of_client }, facts, add)
        end
    end
    return spokesmen
end

local function consult(policy, options, host)
    local chart = chart_of.new()
    local subjects = interview.subjects(policy, options)
    for _, subject in ipairs(subjects) do subject.today = host.clock() end
    ask_everybody(subjects, host.clock)
    judge_policy(chart, policy, options, subjects, judge(chart, subjects))
    return chart
end

-- ---- telling ----------------------------------------------------------------------------------------------

local function complain(text)
    io.stderr:write("weir doctor: ", text, "\n")
    return USAGE
end

local function print_chart(chart, options, host)
    local no_color = os.getenv "NO_COLOR"
    local colour = host.terminal() and (no_color == nil or no_color == "")
    io.write(options.json and writeup.json(chart) or writeup.text(chart, colour))
    io.stdout:flush() -- here a reader that has gone away is noticed
end

--- Runs the command; returns its exit code.
function consultation.main(host, ...)
    local options, why = parse { ... }
    if not options then return complain(why) end
    local policy, wrong = patient.options(options.file)
    if not policy then return complain(phrases.discreet(wrong)) end
    local ok, chart = loop.run(consult, policy, options, host)
    if not ok then error(chart, 0) end
    print_chart(chart, options, host)
    local bad = chart.count.fail > 0 or options.strict and chart.count.warn > 0
    return bad and FAILED or GOOD
end

return consultation
