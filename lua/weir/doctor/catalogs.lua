--- What could not be asked, so that silence is not taken for health.

local catalogs = {}

local about = {
    server = "what the server is", clock = "its clock", tls = "TLS", system = "whose data it holds",
    wal = "how far it is behind", settings = "settings", usage = "connections in use", login = "the login",
    role = "the role", role_settings = "settings of the role", members = "memberships",
        owned = "tables it owns",
    tables = "tables in reach", views = "views in reach", functions = "functions in reach",
        policies = "policies",
    creates = "schemas it may create in",
    filtered = "what policies hide from it",
}

local function grant(facts, err)
    local kind, name = (err.message or ""):match "permission denied for (%w+) ([%w_]+)"
    local login = facts.rows.login and facts.rows.login[1].ident or
        facts.rows.server and facts.rows.server[1].login_ident
    if not kind or not login then return nil end
    if kind == "function" then
        return ("grant execute on function pg_catalog.%s() to %s;"):format(name, login)
    end
    return ("grant select on pg_catalog.%s to %s;"):format(name, login)
end

function catalogs.unreadable(facts, add)
    local names = {}
    for name in pairs(facts.refused) do names[#names + 1] = name end
    table.sort(names)
    for _, name in ipairs(names) do
        local err = facts.refused[name]
        local late = err.code == "timeout"
        add("warn", late and "catalog.too_late" or "catalog.unreadable", {
            found = ("%s could not be found out: %s"):format(about[name] or name,
                late and "no answer in time" or err.message or tostring(err)),
            why = "what hangs on it was not looked at",
            remedy = late and "--timeout with more seconds" or grant(facts, err), kind = late and "system" or
                "sql",
            subject = name,
        })
    end
end

catalogs.checks = { catalogs.unreadable }

return catalogs
