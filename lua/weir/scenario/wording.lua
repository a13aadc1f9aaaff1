--- Numbers as people read them.

local wording = {}

--- 2431 -> "2 431"
function wording.count(n)
    local digits = ("%.0f"):format(n)
    local sign, rest = digits:match("^(%-?)(%d+)$")
    if not rest then return digits end
    return sign .. rest:reverse():gsub("(%d%d%d)", "%1 "):reverse():gsub("^ ", "")
end

local function trimmed(text)
    if not text:find("%.") then return text end
    return (text:gsub("0+$", ""):gsub("%.$", ""))
end

--- Up to four digits that matter: 0.8312, 12.3, 2 431
function wording.number(x)
    if x ~= x or math.abs(x) == math.huge then return tostring(x) end
    if math.abs(x) >= 1000 then return wording.count(x) end
    if x ~= 0 and math.abs(x) < 0.0001 then return ("%.1e"):format(x) end
    return trimmed((math.abs(x) >= 100 and "%.1f" or math.abs(x) >= 10 and "%.2f" or "%.4f"):format(x))
end

--- A share, rounded towards what it is not: 0.99996 is not 1.
function wording.share(x)
    local text = trimmed(("%.4f"):format(x))
    if text == "1" and x < 1 then return "0.9999" end
    if text == "0" and x > 0 then return "0.0001" end
    return text
end

--- Seconds: "0.8 ms", "12 ms", "2.1 s", "90 s"
function wording.seconds(x)
    if x > 0 and x < 0.001 then return trimmed(("%.3f"):format(x * 1000)) .. " ms" end
    if x > 0 and x < 1 then return trimmed((x < 0.01 and "%.2f" or "%.1f"):format(x * 1000)) .. " ms" end
    return trimmed((x < 100 and "%.3f" or "%.1f"):format(x)) .. " s"
end

--- A moment of the run, without its unit: "20", "23.4"
function wording.moment(x)
    return trimmed(("%.3f"):format(x))
end

--- "1 request", "2 431 requests"
function wording.several(n, noun, plural)
    return wording.count(n) .. " " .. (n == 1 and noun or plural or noun .. "s")
end

return wording
