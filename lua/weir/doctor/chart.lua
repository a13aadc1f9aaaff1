--- What was found: lines, each with a level, a stable id, and words.

local chart = {}

local Chart = {}
Chart.__index = Chart

local levels = { ok = 0, warn = 1, fail = 2 }

--- An empty one.
function chart.new()
    return setmetatable({ lines = {}, count = { ok = 0, warn = 0, fail = 0 } }, Chart)
end

--- Notes what was found. `place` says where (backend, client); `words` are
--   found   what is the case
--   why     why it matters
--   remedy  what to paste, and `kind`, where: "sql", "policy", "conninfo" or "system"
--   subject the table, function, role or knob it is about
function Chart:add(level, id, place, words)
    assert(levels[level], level)
    self.count[level] = self.count[level] + 1
    self.lines[#self.lines + 1] = {
        level = level, id = id, backend = place.backend, client = place.client,
        found = words.found, why = words.why, subject = words.subject,
        remedy = words.remedy, kind = words.remedy and (words.kind or "sql"),
    }
end

--- A function add(level, id, words) that notes it for one place.
function Chart:at(place)
    return function(level, id, words)
        self:add(level, id, place, words)
    end
end

return chart
