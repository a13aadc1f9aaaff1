--- Connection URLs as libpq reads them.

local function escape(text)
    return (text:gsub("[^%w_.~-]", function(byte) return string.format("%%%02X", byte:byte()) end))
end

--- The URL of `host` (a name, an address or a socket's folder) and `port`, for a user, a database and a
-- password.
-- @param more  nil, or what follows the question mark
return function(host, port, user, db, password, more)
    local login = escape(user or "postgres") .. (password and ":" .. escape(password) or "")
    return string.format("postgresql://%s@%s:%d/%s%s", login, escape(host), port, escape(db or "postgres"),
        more and "?" .. more or "")
end
