--- Durations as the area counts them, by buckets: what two readings differ in, and the quantiles of that.
--
-- A spread is { count, sum_us, max_us, buckets = { [upper edge in us] = how many } }.

local spread = {}

--- From the document: { sum_us, max_us, buckets = { { upper_us, count }... } }.
function spread.of(document)
    local made = { count = 0, sum_us = document.sum_us or 0, max_us = document.max_us or 0, buckets = {} }
    for _, bucket in ipairs(document.buckets or {}) do
        made.buckets[bucket[1]] = (made.buckets[bucket[1]] or 0) + bucket[2]
        made.count = made.count + bucket[2]
    end
    return made
end

--- What came since `old`, nil if there is no older one. Counts that have fallen are those of another area:
-- all of them are new then.
function spread.since(new, old)
    if not old or old.count > new.count then return new end
    local made = { count = 0, sum_us = math.max(0, new.sum_us - old.sum_us), max_us = new.max_us,
        buckets = {} }
    for edge, count in pairs(new.buckets) do
        local more = count - (old.buckets[edge] or 0)
        if more < 0 then return new end
        if more > 0 then
            made.buckets[edge] = more
            made.count = made.count + more
        end
    end
    return made
end

--- The sum of two; either may be nil.
function spread.sum(one, other)
    if not one or not other then return one or other end
    local made = {
        count = one.count + other.count, sum_us = one.sum_us + other.sum_us,
        max_us = math.max(one.max_us, other.max_us), buckets = {},
    }
    for edge, count in pairs(one.buckets) do made.buckets[edge] = count end
    for edge, count in pairs(other.buckets) do made.buckets[edge] = (made.buckets[edge] or 0) + count end
    return made
end

local function edges_of(made)
    local edges = {}
    for edge in pairs(made.buckets) do edges[#edges + 1] = edge end
    table.sort(edges)
    return edges
end

--- For each share of `shares` the duration in ms that so many did not exceed (the upper edge of their
-- bucket, never above the maximum); nothing if there were none.
function spread.quantiles(made, ...)
    if not made or made.count == 0 then return end
    local edges, found = edges_of(made), {}
    for i, share in ipairs { ... } do
        local rank, seen = math.max(1, math.ceil(share * made.count)), 0
        for _, edge in ipairs(edges) do
            seen = seen + made.buckets[edge]
            if seen >= rank then
                found[i] = math.min(edge, made.max_us > 0 and made.max_us or edge) / 1000
                break
            end
        end
    end
    return table.unpack(found)
end

return spread
