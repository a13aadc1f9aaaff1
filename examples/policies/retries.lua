-- Retries that help a database in trouble instead of burying it.
--
--     local db = weir.open(dofile "examples/policies/retries.lua")
--
-- The engine never lets a policy repeat what may have been committed, unless the caller said that the call is
-- idempotent, and pays every retry from a budget that successes fill. Within that, this is what is worth a
-- second try.

local attempts = {
    ["40001"] = 6, -- serialization failure and deadlock: somebody else won, the server is well
    ["40P01"] = 6,
    ["53300"] = 2, -- no connection left, no resources left: not often
    ["53400"] = 2,
}

local function may_be_repeated(failure)
    if failure.class == "unknown" then return failure.idempotent end
    return failure.safe
end

return {
    name = "retries",
    backends = { primary = os.getenv "DATABASE_URL" or "postgresql:///app" },
    clients = {
        service = { user = "app_service", max = 4, bypass_rls = true },
        anon = { user = "app_anon", max = 16, role = "web_anon" },
    },
    timeout = 10,
    backoff = { kind = "full", base = 0.05, cap = 2 },
    budget = { per_success = 0.1, floor = 10 },
    retry = function(failure)
        if not may_be_repeated(failure) then return nil end
        if failure.attempt >= (attempts[failure.sqlstate] or 4) then return nil end
        local delay = failure:backoff()
        -- A retry that cannot end in time is load and nothing else.
        if delay > failure.remaining / 2 then return nil end
        return delay
    end,
}
