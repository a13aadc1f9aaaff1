-- A source tree as the lint rules see it: every file's path and text, and helpers to read C without its comments.

local house = {}

local function lines_of_command(command)
    local pipe = assert(io.popen(command))
    local lines = {}
    for line in pipe:lines() do lines[#lines + 1] = line end
    pipe:close()
    return lines
end

house.lines_of_command = lines_of_command

function house.quote(text)
    return "'" .. text:gsub("'", "'\\''") .. "'"
end

local function read(path)
    local file = assert(io.open(path, "rb"))
    local text = file:read "a"
    file:close()
    return text
end

-- Build trees stand inside the source tree; what is in them was not written by us.
local function build_trees(root)
    local trees = {}
    for _, path in ipairs(lines_of_command("find " .. house.quote(root) .. " -maxdepth 3 -name CMakeCache.txt")) do
        trees[#trees + 1] = path:match "^(.*)/"
    end
    return trees
end

local function inside(path, folders)
    for _, folder in ipairs(folders) do
        if path:sub(1, #folder + 1) == folder .. "/" then return true end
    end
    return false
end

--- Reads the tree under root: { root =, top = {names}, files = { [path] = text }, paths = {sorted} }.
function house.load(root)
    local self = { root = root, files = {}, paths = {}, top = {} }
    local skipped = build_trees(root)
    skipped[#skipped + 1] = root .. "/.git"
    for _, path in ipairs(lines_of_command("find " .. house.quote(root) .. " -type f | LC_ALL=C sort")) do
        if not inside(path, skipped) then
            local name = path:sub(#root + 2)
            self.paths[#self.paths + 1] = name
            self.files[name] = read(path)
        end
    end
    for _, name in ipairs(lines_of_command("ls -A " .. house.quote(root))) do
        if not inside(root .. "/" .. name .. "/x", skipped) then self.top[#self.top + 1] = name end
    end
    return self
end

--- Iterates over path, text of the files below one of the folders ("src", "include", ...) with one of the endings.
function house.each(tree, folders, endings)
    local index = 0
    return function()
        while true do
            index = index + 1
            local path = tree.paths[index]
            if path == nil then return nil end
            for _, folder in ipairs(folders) do
                for _, ending in ipairs(endings) do
                    local below = folder == "" or path:sub(1, #folder + 1) == folder .. "/"
                    if below and path:sub(#path - #ending + 1) == ending then return path, tree.files[path] end
                end
            end
        end
    end
end

--- Iterates over number, line.
function house.lines(text)
    local number = 0
    local iterate = (text:sub(-1) == "\n" and text or text .. "\n"):gmatch "(.-)\n"
    return function()
        local line = iterate()
        if line == nil then return nil end
        number = number + 1
        return number, line
    end
end

local function blank(text)
    return (text:gsub("[^\n]", " "))
end

--- C text with comments blanked, line numbers kept; with strings = true the insides of literals too.
function house.code(text, strings)
    local out, at = {}, 1
    while at <= #text do
        local start = text:find("[/\"']", at)
        if not start then break end
        out[#out + 1] = text:sub(at, start - 1)
        local two = text:sub(start, start + 1)
        local stop
        if two == "/*" then
            stop = select(2, text:find("*/", start + 2, true)) or #text
            out[#out + 1] = blank(text:sub(start, stop))
        elseif two == "//" then
            stop = (text:find("\n", start, true) or #text + 1) - 1
            out[#out + 1] = blank(text:sub(start, stop))
        elseif two:sub(1, 1) == "/" then
            stop = start
            out[#out + 1] = "/"
        else
            local quote = two:sub(1, 1)
            stop = start + 1
            while stop <= #text and text:sub(stop, stop) ~= quote do
                stop = stop + (text:sub(stop, stop) == "\\" and 2 or 1)
            end
            local literal = text:sub(start, stop)
            out[#out + 1] = strings and quote .. blank(literal:sub(2, -2)) .. quote or literal
        end
        at = stop + 1
    end
    out[#out + 1] = text:sub(at)
    return table.concat(out)
end

return house
