-- Metrics by route, not by address: GET /contacts/17?page=2 counts as GET /contacts/:id.
--
--     local db = weir.open(dofile "examples/policies/labels.lua")
--
-- The context of a call stays whole on the server (application_name) and in the record of finished calls. The
-- label is what counters and latencies are kept by. How many there may be is bounded; what comes after that
-- goes to "other".

local function is_id(segment)
    return segment:find "^%d+$" -- 17
        or segment:find "^%x+%-%x+%-%x+%-%x+%-%x+$" -- a UUID
        or (#segment >= 16 and segment:find "%d" and segment:find "^[%w_-]+$") -- a token
end

local function label(context)
    local path = context:gsub("[?#].*", "")
    return (path:gsub("[^/]+", function(segment) return is_id(segment) and ":id" or segment end))
end

return {
    name = "labels",
    backends = { primary = os.getenv "DATABASE_URL" or "postgresql:///app" },
    clients = {
        service = { user = "app_service", max = 4, bypass_rls = true },
        anon = { user = "app_anon", max = 16, role = "web_anon" },
    },
    label = label,
}
