--- Figures as an operator reads them.

local words = {}

function words.seconds(value)
    if value >= 100 then return ("%.0f s"):format(value) end
    if value >= 1 then return ("%.3g s"):format(value) end
    if value >= 0.001 then return ("%.3g ms"):format(value * 1000) end
    if value >= 0.00001 then return ("%.2g ms"):format(value * 1000) end
    return value > 0 and "less than 0.01 ms" or "0 s"
end

--- A part of the whole, which is 1 if left out.
function words.percent(part, whole)
    whole = whole or 1
    return ("%.3g %%"):format(whole > 0 and 100 * part / whole or 0)
end

--- "1 call", "2 calls".
function words.count(count, word)
    return ("%.4g %s%s"):format(count, word, count == 1 and "" or "s")
end

return words
