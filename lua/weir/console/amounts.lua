--- Numbers as an operator reads them: short, and never without their unit unless a heading has it.

local amounts = {}

--- Milliseconds, in the unit that fits: "85us", "2.1ms", "340ms", "1.20s", "2m05s". nil is "-".
function amounts.ms(ms)
    if not ms then return "-" end
    if ms <= 0 then return "0ms" end
    if ms < 0.0995 then return ("%.0fus"):format(ms * 1000) end
    if ms < 9.95 then return ("%.1fms"):format(ms) end
    if ms < 999.5 then return ("%.0fms"):format(ms) end
    if ms < 9995 then return ("%.2fs"):format(ms / 1000) end
    if ms < 99950 then return ("%.1fs"):format(ms / 1000) end
    return amounts.seconds(ms / 1000)
end

--- A span: "0.4s", "12s", "3m20s", "4h12m", "3d04h".
function amounts.seconds(seconds)
    if not seconds then return "-" end
    if seconds < 9.95 then return ("%.1fs"):format(math.max(0, seconds)) end
    local whole = math.floor(seconds + 0.5)
    if whole < 60 then return ("%ds"):format(whole) end
    if whole < 3600 then return ("%dm%02ds"):format(whole // 60, whole % 60) end
    if whole < 86400 then return ("%dh%02dm"):format(whole // 3600, whole % 3600 // 60) end
    return ("%dd%02dh"):format(whole // 86400, whole % 86400 // 3600)
end

--- How often in a second: "0.4", "38", "12.3k". nil is "-".
function amounts.rate(rate)
    if not rate then return "-" end
    if rate == 0 then return "0" end
    if rate < 0.05 then return "<0.1" end
    if rate < 99.95 then return ("%.1f"):format(rate) end
    if rate < 9999.5 then return ("%.0f"):format(rate) end
    return amounts.count(rate)
end

--- How many: "12", "9999", "12.3k", "4.5M".
function amounts.count(count)
    if not count then return "-" end
    if count < 9999.5 then return ("%.0f"):format(count) end
    if count < 999500 then return ("%.1fk"):format(count / 1e3) end
    if count < 999.5e6 then return ("%.1fM"):format(count / 1e6) end
    return ("%.1fG"):format(count / 1e9)
end

--- A share in percent; 100 and 0 only if it is all and nothing. nil is "-".
function amounts.percent(share)
    if not share then return "-" end
    local text = ("%.2f"):format(share * 100)
    if share < 1 and text == "100.00" then return "99.99" end
    if share > 0 and text == "0.00" then return "0.01" end
    return share == 1 and "100" or text
end

--- Bytes: "4.2M".
function amounts.bytes(bytes)
    if not bytes or bytes == 0 then return "-" end
    if bytes < 1024 * 1024 then return ("%.0fK"):format(bytes / 1024) end
    if bytes < 1024 * 1024 * 1024 then return ("%.1fM"):format(bytes / 1024 / 1024) end
    return ("%.1fG"):format(bytes / 1024 / 1024 / 1024)
end

--- The time of day, of seconds since 1970 and an offset to UTC in seconds.
function amounts.clock(at, offset)
    return os.date("!%H:%M:%S", math.floor(at + (offset or 0)))
end

--- The same with milliseconds.
function amounts.clock_ms(at, offset)
    local whole = math.floor(at)
    local ms = math.floor((at - whole) * 1000)
    return ("%s.%03d"):format(amounts.clock(whole, offset), ms)
end

return amounts
