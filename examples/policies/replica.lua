-- Reads go to the replica, everything else to the primary.
--
--     local db = weir.open(dofile "examples/policies/replica.lua")
--
-- Only the caller knows that a call has no effect, so it says so: db:anon(claims):with { readonly = true }. A
-- unit that says it runs READ ONLY on the server, and one that says nothing never reaches the replica by
-- mistake.

local primary = os.getenv "DATABASE_URL" or "postgresql:///app"
local replica = os.getenv "REPLICA_URL" or primary

-- A replica is always a little behind. These contexts show a user what he has just written, and read the
-- primary.
local reads_its_own_writes = {
    ["GET /account"] = true,
    ["GET /cart"] = true,
}

return {
    name = "replica",
    backends = {
        primary = { conninfo = primary, critical = true }, -- not ready without it
        replica = replica,
    },
    clients = {
        service = { user = "app_service", max = 4, bypass_rls = true },
        anon = { user = "app_anon", max = 16, role = "web_anon" },
    },
    route = function(call)
        local elsewhere = call.readonly and not reads_its_own_writes[call.context]
        return elsewhere and "replica" or "primary"
    end,
}
