--- The contacts of whoever asks. No word of connections here, and the context is the request's method and route.

local weir = require "resty.weir"
local json = require "weir.json"

local contacts = {}

local function answer(value, err)
    if err then return weir.respond(err) end
    ngx.say(json.encode(value))
end

local function list(user)
    return user:query(nil, "select id, name from contacts order by id")
end

-- Read and written in one transaction, which Weir may run again; a name that is there already is no error.
local function add(user, name)
    return user:transaction(nil, function(tx)
        tx:query("insert into contacts (name) values ($1) on conflict (owner, name) do nothing", name)
        return tx:query("select id, name from contacts where name = $1", name)[1]
    end)
end

--- GET: the user's contacts. POST name=...: one more.
function contacts.serve()
    local method = ngx.req.get_method()
    if method ~= "GET" and method ~= "HEAD" and method ~= "POST" then return ngx.exit(405) end
    local db, err = weir.db()
    if not db then return weir.respond(err) end
    local user = db:anon(ngx.ctx.claims)
    if method ~= "POST" then return answer(list(user)) end
    ngx.req.read_body()
    local name = ngx.req.get_post_args().name
    if type(name) ~= "string" then return ngx.exit(400) end
    return answer(add(user, name))
end

--- How many there are of all users: as SERVICE.
function contacts.count()
    local db, err = weir.db()
    if not db then return weir.respond(err) end
    local rows, failure = db:service():query(nil, "select count(*) as contacts from contacts")
    return answer(rows and rows[1], failure)
end

return contacts
