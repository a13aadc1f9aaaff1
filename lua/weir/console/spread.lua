--- Durations as the area counts them, by buckets: what two readings differ in, and the quantiles of that.
--
-- A spread is { count, edges = list of ms, below = how many durations were less than each edge }. All
-- spreads of an engine have the same edges.

local spread = {}

-- Of a label only the part is told in which something happens: below it is 0, above it all.
local function whole(document, edges)
    local below = {}
    for i = 1, #edges do
        local told = i - document.first
        below[i] = told < 1 and 0 or document.below[told] or document.count
    end
    return below
end

--- From a pool's document { edges_ms, below, count }, or a label's { first, below, count } and the pool's
-- edges.
function spread.of(document, edges)
    edges = document.edges_ms or edges
    return { count = document.count, edges = edges, below = document.first and whole(document, edges)
        or document.below }
end

--- What came since `old`. Counts that have fallen are those of another area: all of them are new then.
function spread.since(new, old)
    if not new or not old or old.count > new.count then return new end
    local made = { count = new.count - old.count, edges = new.edges, below = {} }
    for i, below in ipairs(new.below) do made.below[i] = math.max(0, below - (old.below[i] or 0)) end
    return made
end

--- The sum of two; either may be nil.
function spread.sum(one, other)
    if not one or not other then return one or other end
    local made = { count = one.count + other.count, edges = one.edges, below = {} }
    for i, below in ipairs(one.below) do made.below[i] = below + (other.below[i] or 0) end
    return made
end

local function quantile(made, share)
    local rank, edges = math.max(1, math.ceil(share * made.count)), made.edges
    for i, below in ipairs(made.below) do
        if below >= rank then return ((edges[i - 1] or 0) + edges[i]) / 2 end
    end
    return edges[#edges]
end

--- For each share the duration in ms that so many did not exceed: the middle of its bucket. Nothing if
-- there were none.
function spread.quantiles(made, ...)
    if not made or made.count <= 0 or #made.edges == 0 then return end
    local found = {}
    for i, share in ipairs { ... } do found[i] = quantile(made, share) end
    return table.unpack(found)
end

return spread
