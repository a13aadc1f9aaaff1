--- What keys do in `weir top`: a function from a state and a key to the state after it. See frame.lua for
-- the state.

local views = require "weir.console.views"

local topkeys = {}

local PAGE = 10 -- lines

-- ---- moving -----------------------------------------------------------------------------------------------

local function move(state, by)
    local rows = views.rows(state, state.view)
    local at = views.selected(state, state.view, rows)
    if not at then return end
    at = math.max(1, math.min(#rows, at + by))
    state.selected[state.view] = views.by_name[state.view].id(rows[at])
end

local function selected_row(state)
    local rows = views.rows(state, state.view)
    local at = views.selected(state, state.view, rows)
    return at and rows[at]
end

local function show(state, name)
    state.view, state.call, state.label = name, nil, nil
end

local function next_view(state, by)
    local count = 0
    for i, view in ipairs(views.list) do
        if not view.hidden then count = i end
    end
    for i, view in ipairs(views.list) do
        if view.name == state.view then
            show(state, views.list[(i - 1 + by) % count + 1].name)
            return
        end
    end
end

-- ---- looking into it --------------------------------------------------------------------------------------

local function look_into(state)
    local row = selected_row(state)
    if not row or state.call then return end
    if state.view == "overview" or state.view == "labels" then
        state.from, state.view, state.label = state.view, "label", row.label
        state.selected.label = nil
    elseif state.view == "calls" or state.view == "label" then
        state.call = row
    end
end

local function go_back(state)
    if state.call then
        state.call = nil
    elseif state.view == "label" then
        show(state, state.from or "overview")
    elseif state.filter ~= "" then
        state.filter = ""
    end
end

-- ---- sorting ----------------------------------------------------------------------------------------------

local function sort(state, by)
    local count = #views.by_name[state.view].orders
    state.sorted[state.view] = ((state.sorted[state.view] or 1) - 1 + by) % count + 1
end

-- ---- filtering --------------------------------------------------------------------------------------------

local function filter_key(state, key)
    if key == "enter" then
        state.filtering = false
    elseif key == "escape" then
        state.filtering, state.filter = false, ""
    elseif key == "backspace" then
        local last = utf8.offset(state.filter, -1)
        state.filter = last and state.filter:sub(1, last - 1) or ""
    elseif utf8.len(key) == 1 and #state.filter < 60 then
        state.filter = state.filter .. key
    end
end

-- ---- all keys ---------------------------------------------------------------------------------------------

local actions = {
    up = function(state) move(state, -1) end,
    down = function(state) move(state, 1) end,
    k = function(state) move(state, -1) end,
    j = function(state) move(state, 1) end,
    pageup = function(state) move(state, -PAGE) end,
    pagedown = function(state) move(state, PAGE) end,
    home = function(state) move(state, -math.huge) end,
    ["end"] = function(state) move(state, math.huge) end,
    tab = function(state) next_view(state, 1) end,
    backtab = function(state) next_view(state, -1) end,
    enter = look_into,
    escape = go_back,
    backspace = go_back,
    s = function(state) sort(state, 1) end,
    [">"] = function(state) sort(state, 1) end,
    ["<"] = function(state) sort(state, -1) end,
    right = function(state) sort(state, 1) end,
    left = function(state) sort(state, -1) end,
    ["/"] = function(state) state.filtering = true end,
    [" "] = function(state) state.frozen = not state.frozen end,
    ["?"] = function(state) state.help = true end,
    h = function(state) state.help = true end,
}

for i, view in ipairs(views.list) do
    if not view.hidden then
        actions[tostring(i)] = function(state) show(state, view.name) end
    end
end

--- Changes the state as the key wants; true if it is the end.
function topkeys.press(state, key)
    if key == "resize" then return false end
    if key == "gone" then return true end
    if state.help then
        state.help = false
        return key == "q"
    end
    if state.filtering then
        filter_key(state, key)
        return false
    end
    if key == "q" or key == "Q" then return true end
    local action = actions[key]
    if action then action(state) end
    return false
end

return topkeys
