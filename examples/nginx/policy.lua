-- What weir_policy reads: Lua that returns the options of the engine. The limits count over all workers.
return {
    name = "api",
    backends = { primary = assert(os.getenv "DATABASE_URL", "DATABASE_URL is not set") },
    clients = {
        service = { user = "app_service", max = 4, bypass_rls = true },
        anon = { user = "app_anon", role = "web_anon", max = 16 },
    },
    timeout = 5,
    acquire_timeout = 2,
    breaker = { window = 10, min_calls = 20, failure_rate = 0.5, open_for = 30 },
    backoff = { kind = "full", base = 0.05, cap = 1 },
    slow_log = 1, -- into the error log, as all that happens to the engine
    retry = function(failure)
        if failure.safe and failure.attempt <= 2 then return failure:backoff() end
    end,
}
