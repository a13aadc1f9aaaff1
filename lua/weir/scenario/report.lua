--- What a run has shown: whether all expectations hold, what does not and why, and the picture.
--
--     report = { ok, name, seed, failures = { "FILE:LINE: ...", ... }, skipped = "why" or nil, text, picture,
--                hash, figures, seconds }
-- Shared by runs in virtual time and runs against a real server: report.new(scenario, figures, options),
-- with options { ascii, seconds, failures = { "...", ... } found elsewhere }, and report.skip(scenario,
-- seed, why).

local expect = require "weir.scenario.expect"
local picture = require "weir.scenario.picture"
local wording = require "weir.scenario.wording"

local report = {}

local function judge(one, figures, so_far, failures)
    local fine, sentence = one:verify(figures, so_far)
    if not fine then failures[#failures + 1] = one.where:say("%s", sentence) end
end

local function failures_of(plan, figures, so_far, failures)
    for _, text in ipairs(figures.faults_of_work or {}) do failures[#failures + 1] = text end
    for _, one in ipairs(plan.expect) do judge(one, figures, so_far, failures) end
    for _, one in ipairs(expect.always(plan)) do judge(one, figures, so_far, failures) end
    return failures
end

local function headline(self, figures)
    local whole = figures.whole
    local requests = ("%s in %s s"):format(wording.several(whole.arrived, "request"),
        wording.moment(figures.ended))
    if self.ok then
        return ("%s: as expected (%s, seed %s)"):format(self.name, requests, tostring(self.seed))
    end
    return ("%s: %s (%s, seed %s)"):format(self.name, wording.several(#self.failures, "failure"), requests,
        tostring(self.seed))
end

--- Judges what was measured.
function report.new(scenario, figures, options)
    local self = {
        name = scenario.name, seed = figures.seed, figures = figures, hash = figures.hash,
            seconds = options.seconds,
    }
    self.picture = picture.draw(scenario.plan, figures, { ascii = options.ascii })
    self.failures = failures_of(scenario.plan, figures, self, options.failures or {})
    self.ok = #self.failures == 0
    local parts = { headline(self, figures) }
    for _, sentence in ipairs(self.failures) do parts[#parts + 1] = sentence end
    parts[#parts + 1] = self.picture
    self.text = table.concat(parts, "\n")
    return self
end

--- Of a scenario that was not run, and why.
function report.skip(scenario, seed, why)
    return {
        ok = true, name = scenario.name, seed = seed, failures = {}, skipped = why, picture = "", seconds = 0,
        text = ("%s: skipped: %s"):format(scenario.name, why),
    }
end

return report
