--- Text in columns of a terminal: how wide it is, cut and padded to a width, bars and curves drawn with
-- letters.
--
-- A set of glyphs is either `columns.unicode` or `columns.ascii`; nothing that is drawn with the second
-- leaves ASCII.

local columns = {}

columns.unicode = {
    name = "unicode", full = "█", rest = "░", rule = "─", more = "…", mark = "▸", warning = "▲",
    curve = { "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█" },
    closed = "●", half_open = "◐", open = "○", forced = "■", wait = "·", connect = "▒", run = "█",
        pause = " ",
    up = "▲", down = "▼",
}

columns.ascii = {
    name = "ascii", full = "#", rest = ".", rule = "-", more = "~", mark = ">", warning = "!",
    curve = { "_", ".", ",", ":", "-", "=", "*", "#" },
    closed = "+", half_open = "~", open = "o", forced = "X", wait = ".", connect = "=", run = "#",
        pause = " ",
    up = "^", down = "v",
}

-- ---- width ------------------------------------------------------------------------------------------------

-- First and last code points of what takes no column, and of what takes two; the blocks that names and
-- statements are likely to hold, as in wcwidth.
local none = {
    { 0x300, 0x36f }, { 0x483, 0x489 }, { 0x591, 0x5bd }, { 0x610, 0x61a }, { 0x64b, 0x65f }, { 0x200b,
        0x200f },
    { 0x202a, 0x202e }, { 0x2060, 0x2064 }, { 0x20d0, 0x20ff }, { 0xfe00, 0xfe0f }, { 0xfe20, 0xfe2f },
    { 0xfeff, 0xfeff }, { 0xe0100, 0xe01ef },
}
local two = {
    { 0x1100, 0x115f }, { 0x231a, 0x231b }, { 0x2329, 0x232a }, { 0x2e80, 0x303e }, { 0x3041, 0x33ff },
    { 0x3400, 0x4dbf }, { 0x4e00, 0x9fff }, { 0xa000, 0xa4cf }, { 0xa960, 0xa97f }, { 0xac00, 0xd7a3 },
    { 0xf900, 0xfaff }, { 0xfe30, 0xfe6f }, { 0xff00, 0xff60 }, { 0xffe0, 0xffe6 }, { 0x1f300, 0x1f64f },
    { 0x1f680, 0x1f6ff }, { 0x1f900, 0x1f9ff }, { 0x20000, 0x3fffd },
}

local function within(ranges, code)
    for _, range in ipairs(ranges) do
        if code < range[1] then return false end
        if code <= range[2] then return true end
    end
    return false
end

local function width_of(code)
    if code < 0x300 then return 1 end
    if within(none, code) then return 0 end
    return within(two, code) and 2 or 1
end

--- How many columns a text takes that `clean` has seen.
function columns.width(text)
    if not text:find "[\128-\255]" then return #text end
    local width = 0
    for _, code in utf8.codes(text) do width = width + width_of(code) end
    return width
end

-- The code point of the character that starts at `at`, or nil if there is none of UTF-8.
local function code_at(text, at)
    return utf8.len(text, at, at) and utf8.codepoint(text, at)
end

local steering = { { 0x80, 0x9f }, { 0x61c, 0x61c }, { 0x200b, 0x200f }, { 0x2028, 0x202e }, { 0x2060, 0x206f },
    { 0xe000, 0xf8ff }, { 0xfeff, 0xfeff }, { 0xfff9, 0xfffb } }

-- Valid UTF-8 without signs that steer a terminal or turn the text round; what is neither becomes "?".
local function clean_utf8(text)
    local out, at = {}, 1
    while at <= #text do
        local code = code_at(text, at)
        local letter = code and utf8.char(code)
        out[#out + 1] = letter and not within(steering, code) and letter or "?"
        at = at + (letter and #letter or 1)
    end
    return table.concat(out)
end

--- The text as it may be sent to a terminal: labels and errors come from anywhere.
function columns.clean(text, glyphs)
    text = tostring(text):gsub("[%c\127]", " ")
    if not text:find "[\128-\255]" then return text end
    text = clean_utf8(text)
    if glyphs.name == "ascii" then text = text:gsub(utf8.charpattern, function(c) return #c > 1 and "?"
        or nil end) end
    return text
end

-- The longest beginning of at most `width` columns, and how many it takes.
local function beginning(text, width)
    if not text:find "[\128-\255]" then return text:sub(1, width), math.min(#text, width) end
    local taken = 0
    for at, code in utf8.codes(text) do
        local wide = width_of(code)
        if taken + wide > width then return text:sub(1, at - 1), taken end
        taken = taken + wide
    end
    return text, taken
end

--- The text in exactly `width` columns: cut, with a sign that there is more, or padded on the right, or on
-- the left if `right` is given.
function columns.fit(text, width, glyphs, right)
    if width <= 0 then return "" end
    local whole = columns.width(text)
    if whole > width then
        local start, taken = beginning(text, width - 1)
        return start .. glyphs.more .. (" "):rep(width - 1 - taken)
    end
    local space = (" "):rep(width - whole)
    return right and space .. text or text .. space
end

--- At most `width` columns of the text, without padding.
function columns.cut(text, width, glyphs)
    if columns.width(text) <= width then return text end
    return columns.fit(text, width, glyphs)
end

-- ---- pictures ---------------------------------------------------------------------------------------------

--- A bar of `width` columns for a share from 0 to 1: the part that is full, and the rest. What is more than
-- nothing shows, and less than all is not full.
function columns.bar(share, width, glyphs)
    local full = math.floor(share * width + 0.5)
    if share > 0 and full == 0 then full = 1 end
    if share < 1 and full >= width then full = width - 1 end
    full = math.max(0, math.min(width, full))
    return glyphs.full:rep(full), glyphs.rest:rep(width - full)
end

local function largest(list)
    local most = 0
    for _, value in ipairs(list) do
        if value and value > most then most = value end
    end
    return most
end

--- The last `width` values as a curve over the largest of them; `false` for a moment of which nothing is
-- known.
function columns.curve(values, width, glyphs)
    local first = math.max(1, #values - width + 1)
    local shown = table.move(values, first, #values, 1, {})
    local most, out = largest(shown), {}
    for i, value in ipairs(shown) do
        local level = value and most > 0 and math.ceil(value / most * #glyphs.curve) or 0
        out[i] = not value and " " or glyphs.curve[math.max(1, level)]
    end
    return (" "):rep(width - #shown) .. table.concat(out)
end

return columns
