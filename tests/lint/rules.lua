-- The rules of the house that a compiler does not know. Each takes a tree (house.lua) and returns what breaks it, one
-- sentence per finding. test_house.lua applies them to this tree, test_rules.lua to small trees that break them.

local house = require "house"

local rules = {}

local function finding(list, path, line, text, ...)
    list[#list + 1] = ("%s:%d: "):format(path, line) .. text:format(...)
end

-- ---- the layers -------------------------------------------------------------------------------------------------

local below = { -- which folders of src/ a folder may include, itself always
    base = {},
    area = { "base" },
    guard = { "base", "area" },
    engine = { "base", "area", "guard" },
    pg = { "base", "area", "guard", "engine" },
    sim = { "base", "area", "guard", "engine" },
    load = { "base" }, -- a program's part: it sees the engine through include/
    web = { "base" }, -- so does what an HTTP server shows
    host = { "base", "area", "guard", "engine" },
    lua = {}, -- these see the engine as any program does: through include/
    nginx = {},
    cli = {},
}

local function may_include(layer, other)
    if layer == other then return true end
    for _, name in ipairs(below[layer]) do
        if name == other then return true end
    end
    return false
end

function rules.includes_point_downwards(tree)
    local found = {}
    for path, text in house.each(tree, { "src" }, { ".c", ".h" }) do
        local layer = path:match "^src/([^/]+)/"
        for number, line in house.lines(house.code(text)) do
            local name = line:match '^%s*#%s*include%s*"([^"]+)"'
            local folder = name and name:match "^([^/]+)/"
            if not below[layer or ""] then
                finding(found, path, number, "stands in no layer")
                break
            elseif name == "weir/uv.h" and (layer ~= "host" and layer ~= "lua" and layer ~= "cli") then
                finding(found, path, number, "src/%s knows no loop and may not include weir/uv.h", layer)
            elseif name and folder == nil and not tree.files["src/" .. layer .. "/" .. name] then
                finding(found, path, number, "%s is not in src/%s; includes name the folder", name, layer)
            elseif name and folder and folder ~= "weir" and not (below[folder] and may_include(layer, folder)) then
                finding(found, path, number, "src/%s may not include %s", layer, name)
            end
        end
    end
    return found
end

local homes = { -- whose header it is, where it may be included, and where one looks
    { header = "libpq%-fe%.h", home = { "src/pg/", "tests/support/", "tests/bench/" }, scope = { "" } },
    { header = "uv%.h", home = { "src/host/", "src/cli/" }, scope = { "src", "include" } },
    { header = "microhttpd%.h", home = { "src/cli/" }, scope = { "" } },
    { header = "luaj?i?t?%.h", home = { "src/lua/", "src/cli/", "src/nginx/ngxlua" }, scope = { "src", "include" } },
    { header = "ngx_[%w_]+%.h", home = { "src/nginx/" }, scope = { "" } },
    { header = "curses%.h", home = { "src/cli/screen" }, scope = { "src", "include" } },
    { header = "lauxlib%.h", home = { "src/lua/", "src/cli/", "src/nginx/ngxlua" }, scope = { "src", "include" } },
    { header = "lualib%.h", home = { "src/lua/", "src/cli/", "src/nginx/ngxlua" }, scope = { "src", "include" } },
}

local function at_home(path, home)
    for _, prefix in ipairs(home) do
        if path:sub(1, #prefix) == prefix then return true end
    end
    return false
end

function rules.libraries_are_known_in_one_place(tree)
    local found = {}
    for _, rule in ipairs(homes) do
        for path, text in house.each(tree, rule.scope, { ".c", ".h" }) do
            for number, line in house.lines(house.code(text)) do
                local name = line:match '^%s*#%s*include%s*[<"]([^>"]+)[>"]'
                if name and name ~= "weir/uv.h" and ("/" .. name):find("/" .. rule.header .. "$") and
                    not at_home(path, rule.home) then
                    finding(found, path, number, "%s is included only in %s", name, table.concat(rule.home, ", "))
                end
            end
        end
    end
    return found
end

-- ---- calls ------------------------------------------------------------------------------------------------------

local banned = { -- call, why
    PQexec = "blocks", PQexecParams = "blocks", PQexecPrepared = "blocks", PQprepare = "blocks",
    PQdescribePrepared = "blocks", PQconnectdb = "blocks", PQconnectdbParams = "blocks", PQsetdb = "blocks",
    PQsetdbLogin = "blocks", PQreset = "blocks", PQresetStart = "keeps a connection that failed",
    sleep = "blocks", usleep = "blocks", nanosleep = "blocks", clock_nanosleep = "blocks",
    system = "blocks and runs a shell", popen = "runs a shell",
    strcpy = "has no bound", strcat = "has no bound", sprintf = "has no bound", vsprintf = "has no bound",
    gets = "has no bound",
}
local crew_only = { "PQcancel", "PQconnectStart", "PQconnectStartParams" }

local function calls(code, name)
    return code:find("%f[%w_]" .. name .. "%s*%(") ~= nil
end

function rules.nothing_blocks_or_overruns(tree)
    local found = {}
    for path, text in house.each(tree, { "src" }, { ".c", ".h" }) do
        for number, line in house.lines(house.code(text, true)) do
            for name, why in pairs(banned) do
                if calls(line, name) then finding(found, path, number, "%s %s", name, why) end
            end
        end
    end
    return found
end

function rules.connecting_and_cancelling_belong_to_the_crew(tree)
    local found = {}
    for path, text in house.each(tree, { "src" }, { ".c", ".h" }) do
        -- handshake.c is what a crew thread runs: the connect itself
        local crew = path == "src/pg/crew.c" or path == "src/pg/handshake.c"
        for number, line in house.lines(house.code(text, true)) do
            for _, name in ipairs(crew_only) do
                if not crew and calls(line, name) then
                    finding(found, path, number, "%s may stall its caller and is called by the crew (crew.c, handshake.c) only", name)
                end
            end
        end
    end
    return found
end

-- ---- shape ------------------------------------------------------------------------------------------------------

local FILE_LINES, FUNCTION_LINES = 600, 60

local allowed_top = {
    src = true, lua = true, include = true, tests = true, examples = true,
    ["CMakeLists.txt"] = true, ["README.md"] = true, LICENSE = true,
}

function rules.the_top_level_is_fixed(tree)
    local found, seen = {}, {}
    for _, name in ipairs(tree.top) do
        seen[name] = true
        if not allowed_top[name] and name:sub(1, 1) ~= "." then
            finding(found, name, 1, "does not belong at the top level")
        end
    end
    for name in pairs(allowed_top) do
        if not seen[name] then finding(found, name, 1, "is missing at the top level") end
    end
    return found
end

function rules.file_names_are_unique(tree)
    local found, first = {}, {}
    for path in house.each(tree, { "src", "lua", "include" }, { "" }) do
        local name = path:match "[^/]+$"
        if name ~= "README.md" then
            if first[name] then finding(found, path, 1, "has the name of %s", first[name]) end
            first[name] = first[name] or path
        end
    end
    return found
end

function rules.a_file_tells_one_story(tree)
    local found = {}
    for path, text in house.each(tree, { "src", "lua", "include", "examples" }, { ".c", ".h", ".lua", ".sh" }) do
        local _, count = text:gsub("\n", "")
        if count > FILE_LINES then finding(found, path, count, "has %d lines, more than %d", count, FILE_LINES) end
    end
    return found
end

-- A function's body starts and ends with a brace in the first column; nothing else of ours does.
function rules.a_function_fits_on_a_screen(tree)
    local found = {}
    for path, text in house.each(tree, { "src" }, { ".c", ".h" }) do
        local opened
        for number, line in house.lines(text) do
            if line == "{" then
                opened = number
            elseif opened and line:sub(1, 1) == "}" then
                local count = number - opened - 1
                if count > FUNCTION_LINES then
                    finding(found, path, opened, "a function of %d lines, more than %d", count, FUNCTION_LINES)
                end
                opened = nil
            end
        end
    end
    return found
end

-- ---- text -------------------------------------------------------------------------------------------------------

-- Debian 12's package of that name removes the nginx modules we are to run beside; luajit2 does not. Debian 13 has no other,
-- and what is for 13 says so. A comment installs nothing, and names of packages are in small letters.
function rules.scripts_install_the_right_luajit(tree)
    local found = {}
    for path, text in house.each(tree, { "" }, { ".sh", ".ci/run", ".yml", ".yaml" }) do
        for number, line in house.lines(text) do
            local harmless = line:find "^%s*#" or line:find "^%s*13%) "
            if not harmless and (line .. " "):find "luajit[^2]" then
                finding(found, path, number, "names a package that removes luajit2")
            end
        end
    end
    return found
end

local promises = { "TO" .. "DO", "FIX" .. "ME", "X" .. "XX" }

function rules.nothing_is_promised_for_later(tree)
    local found = {}
    for path, text in house.each(tree, { "" }, { "" }) do
        for number, line in house.lines(text) do
            for _, word in ipairs(promises) do
                if line:find("%f[%w_]" .. word .. "%f[^%w_]") then finding(found, path, number, "says %s", word) end
            end
        end
    end
    return found
end

-- ---- the public interface ---------------------------------------------------------------------------------------

local languages = {
    { name = "C", command = "cc -std=c11 -x c", flags = "-Wall -Wextra -Wpedantic -Wconversion -Werror" },
    { name = "C++", command = "c++ -std=c++11 -x c++", flags = "-Wall -Wextra -Wpedantic -Werror" },
}

function rules.public_headers_compile_alone(tree)
    local found = {}
    for path in house.each(tree, { "include" }, { ".h" }) do
        for _, language in ipairs(languages) do
            local includes = ('printf \'#include "%s"\\n\''):format(path:gsub("^include/", ""))
            local output = house.lines_of_command(("%s | %s %s -fsyntax-only -I%s - 2>&1 || echo failed"):format(
                includes, language.command, language.flags, house.quote(tree.root .. "/include")))
            if #output > 0 then
                finding(found, path, 1, "does not compile alone as %s: %s", language.name, table.concat(output, "\n  "))
            end
        end
    end
    return found
end

--- Names of the functions and arrays the public headers declare, each with its header.
function rules.declared_functions(tree)
    local declared = {}
    for path, text in house.each(tree, { "include" }, { ".h" }) do
        local code = house.code(text, true):gsub("#[^\n]*", ""):gsub('extern%s*"%s*"%s*{', "")
        code = code:gsub("%b{}", " ")
        for declaration in code:gmatch "[^;]+" do
            local name = not declaration:find "^%s*typedef" and declaration:match "(weir_[%w_]+)%s*%("
                or declaration:match "^%s*extern%s[^(]-(weir_[%w_]+)%s*%["
            if name then declared[name] = path end
        end
    end
    return declared
end

--- What is declared is there, and nothing else comes out of the shared libraries in build.
function rules.the_libraries_export_what_the_headers_declare(tree, build)
    local found, exported = {}, {}
    for _, library in ipairs { "libweir.so", "libweir-uv.so", "libweir-repl.so" } do
        for _, line in ipairs(house.lines_of_command("nm -D --defined-only " .. house.quote(build .. "/" .. library))) do
            exported[line:match "%S+$"] = library
        end
    end
    local declared = rules.declared_functions(tree)
    for name, header in pairs(declared) do
        -- luahost.h is the binding's, which programs link in, or take from libweir-repl
        local optional = header:find "luahost%.h$"
        if not exported[name] and not optional then finding(found, header, 1, "declares %s, which no library defines", name) end
    end
    for name, library in pairs(exported) do
        if not declared[name] then finding(found, library, 1, "exports %s, which no header declares", name) end
    end
    return found
end

return rules
