-- What README says about weir doctor: its output is real, and its table of ids is complete.

local examination = require "examination"
local lu = require "luaunit"
local testing = require "weir.testing"

local SOURCE = os.getenv "WEIR_SOURCE_DIR" or "."

local function read(path)
    local file = assert(io.open(path, "rb"))
    local text = file:read "a"
    file:close()
    return text
end

local readme = read(SOURCE .. "/README.md")
local section = readme:match "\n### weir doctor\n(.-)\n### "

local function block(text, language)
    return (text:match("\n```" .. language .. "\n(.-)\n```"))
end

-- Figures and places differ from machine to machine.
local function general(text)
    return (text:gsub("/[%w/._-]+", "PATH"):gsub("%d+%.?%d*", "N"):gsub("N [mu]s", "N s"):gsub("%s+", " "))
end

TestReadme = {}

function TestReadme:test_its_output_is_what_a_reader_gets()
    local pg <close> = assert(testing.postgres())
    assert(pg:sql(block(readme, "sql")))
    local statements = section:match "said `([^`]*)`"
    assert(pg:sql(statements))
    local code, output, said = examination.with_file(block(readme, "lua"), function(path)
        return examination.run(path, ("DATABASE_URL='%s'"):format(pg:url()))
    end)
    lu.assertEquals(code, 1, said)
    output = general(output)
    local pieces = 0
    for piece in (block(section, "text doctor") .. "\n"):gsub("\n *%.%.%.\n", "\0"):gmatch "[^%z]+" do
        pieces = pieces + 1
        lu.assertStrContains(output, general(piece):match "^%s*(.-)%s*$")
    end
    lu.assertTrue(pieces >= 3)
end

-- `reach.dns` `.refused`, `tls.none`: the ids that a text names.
local function named_in(text)
    local ids, group = {}, nil
    for name in text:gmatch "`([%w_.]+)`" do
        local first, rest = name:match "^(%a*)%.([%a_]+)$"
        if first and first ~= "" then group = first end
        if rest and group then ids[group .. "." .. rest] = true end
    end
    return ids
end

local function sources()
    local text = {}
    local pipe = io.popen(("cat '%s'/lua/weir/doctor/*.lua"):format(SOURCE))
    text = pipe:read "a"
    pipe:close()
    return text
end

-- Those that are put together from parts are left to the tests that see them.
local function written_out(text)
    local ids = {}
    for id in text:gmatch '"(%l+%.[%l_]+)"' do
        if not id:find "^weir%." and not id:find "^pg_" then ids[#ids + 1] = id end
    end
    return ids
end

function TestReadme:test_its_table_names_every_id()
    local named = named_in(section:match "\n| | trouble | well |.*")
    for _, id in ipairs(written_out(sources())) do lu.assertTrue(named[id], id) end
    local count = 0
    for _ in pairs(named) do count = count + 1 end
    lu.assertTrue(count > 90, count)
end

os.exit(lu.LuaUnit.run())
