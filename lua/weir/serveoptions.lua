--- The command line of `weir serve`.

local serveoptions = {}

local function seconds(text)
    local number = text:find "^[%d.]+$" and tonumber(text)
    if number and number <= 86400 then return number end
    return nil, "a number of seconds from 0 to 86400"
end

local function text_of(text)
    if text ~= "" then return text end
    return nil, "a text that is not empty"
end

local known = {
    ["--listen"] = { key = "listen", read = text_of },
    ["--area"] = { key = "area", read = text_of },
    ["--token-file"] = { key = "token_file", read = text_of },
    ["--drain"] = { key = "drain", read = seconds },
    ["--linger"] = { key = "linger", read = seconds },
}

local function take_value(options, name, value)
    local option = known[name]
    if not option then
        local said = "unknown option '%s'; there are --listen, --area, --token-file, --drain and --linger"
        return nil, said:format(name)
    end
    if value == nil then return nil, name .. " needs a value" end
    local read, wanted = option.read(value)
    if read == nil then return nil, ("%s is '%s'; it must be %s"):format(name, value, wanted) end
    options[option.key] = read
    return true
end

local function judge(options)
    if not options.listen then return nil, "--listen ADDRESS is missing" end
    if not options.policy and not options.area then return nil, "POLICY.lua is missing, or --area PATH" end
    return options
end

--- @return the options, or nil and a sentence
function serveoptions.read(arguments)
    local options, at = { drain = 10, linger = 0 }, 1
    while at <= #arguments do
        local word = arguments[at]
        local name, value = word:match "^(%-%-[%w-]+)=(.*)$"
        if word:sub(1, 1) ~= "-" then
            if options.policy then return nil, ("one POLICY.lua at most, not '%s' too"):format(word) end
            options.policy = word
        else
            if not name then
                name, value = word, arguments[at + 1]
                at = at + 1
            end
            local taken, why = take_value(options, name, value)
            if not taken then return nil, why end
        end
        at = at + 1
    end
    return judge(options)
end

return serveoptions
