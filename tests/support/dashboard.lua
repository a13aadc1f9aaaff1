-- The expressions of examples/grafana and examples/prometheus, for the tests that hold them against a real /metrics.

local dkjson = require "dkjson"

local dashboard = {}

local ROOT = os.getenv "WEIR_SOURCE_DIR" or "."

dashboard.rules_folder = ROOT .. "/examples/prometheus"

local function read(path)
    local file = assert(io.open(path, "rb"))
    local text = file:read "a"
    file:close()
    return text
end

--- The dashboard as a table.
function dashboard.document()
    return assert(dkjson.decode((read(ROOT .. "/examples/grafana/weir.json"))))
end

-- As Grafana would, for one job and all pools.
local function fill_in(expression)
    return (expression:gsub("%$__rate_interval", "10s"):gsub("%$job", ".*"):gsub("%$pool", ".*"))
end

--- Of all its panels and annotations: title -> list of expressions.
function dashboard.expressions()
    local document, found = dashboard.document(), {}
    for _, panel in ipairs(document.panels) do
        for _, target in ipairs(panel.targets or {}) do
            found[#found + 1] = { title = panel.title, text = fill_in(target.expr) }
        end
    end
    for _, annotation in ipairs(document.annotations.list) do
        if annotation.expr then found[#found + 1] = { title = annotation.name, text = fill_in(annotation.expr) } end
    end
    for _, variable in ipairs(document.templating.list) do
        local inside = type(variable.query) == "table" and variable.query.query:match "^label_values%((.*), [%w_]+%)$"
        if inside then found[#found + 1] = { title = variable.name, text = fill_in(inside) } end
    end
    return found
end

--- Of the rules: the text of each expression, and the names that they record.
function dashboard.rules()
    local text, expressions, recorded = read(dashboard.rules_folder .. "/weir_rules.yml"), {}, {}
    text = text:gsub("expr: >%-\n%s+([^\n]+)\n%s+([^\n]+)", "expr: %1 %2")
    for expression in text:gmatch "expr: ([^\n]+)" do
        expressions[#expressions + 1] = { title = "rule", text = expression }
    end
    for name in text:gmatch "record: (%S+)" do recorded[name] = true end
    return expressions, recorded
end

return dashboard
