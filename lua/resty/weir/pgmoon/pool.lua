--- PostgresPool: several objects of pgmoon behind one that looks like them. With Weir an object holds no
-- connection, so nobody needs this any more; it is here for code that has it.

local pgmoon = require "resty.weir.pgmoon"

local pools = {}

local Pool = {}
Pool.__index = Pool

local Postgres = pgmoon.Postgres

local function add_object(pool)
    local most = pool.config.max_pool_size
    if most and #pool.pool >= most then return nil, "pool exhausted, max_pool_size reached" end
    local pg = Postgres(pool.config)
    if pool._timeout then pg:settimeout(pool._timeout) end
    pg.PG_TYPES, pg.type_deserializers = pool.PG_TYPES, pool.type_deserializers
    local done, err, more = pg:connect()
    if not done then return nil, err, more end
    pool.pool[#pool.pool + 1] = pg
    return pg
end

-- One that nobody uses, or a new one.
local function free_object(pool)
    if not pool.pool[1] then return nil, "not connected" end
    for _, pg in ipairs(pool.pool) do
        if not pg.busy and not pg.reserved then return pg end
    end
    return add_object(pool)
end

--- Makes the first object.
function Pool:connect()
    if self.pool[1] then return nil, "already connected" end
    local pg, err, more = add_object(self)
    if not pg then return nil, err, more end
    return true
end

local function give_up_all(pool, how, ...)
    for _, pg in ipairs(pool.pool) do pg[how](pg, ...) end
    pool.pool = {}
    return true
end

function Pool:disconnect()
    return give_up_all(self, "disconnect")
end

function Pool:keepalive(...)
    return give_up_all(self, "keepalive", ...)
end

function Pool:settimeout(time)
    self._timeout = time
    for _, pg in ipairs(self.pool) do pg:settimeout(time) end
end

function Pool:set_type_deserializer(...)
    Postgres.set_type_deserializer(self, ...)
    for _, pg in ipairs(self.pool) do
        pg.PG_TYPES, pg.type_deserializers = self.PG_TYPES, self.type_deserializers
    end
end

local function delegate(name)
    Pool[name] = function(self, ...)
        local pg, err, more = free_object(self)
        if not pg then return nil, err, nil, 0, nil, nil, more end
        return pg[name](pg, ...)
    end
end

delegate "query"
delegate "simple_query"
delegate "extended_query"

function Pool.wait_for_notification()
    error("can't use wait for notification with pool", 2)
end

--- An object for one caller alone, for a transaction; release gives it back.
function Pool:reserve()
    local pg, err, more = free_object(self)
    if not pg then return nil, err, more end
    pg.reserved = true
    return pg
end

--- Takes a reserved object back; a transaction that is still open is rolled back.
function Pool:release(pg)
    local ours = false
    for _, other in ipairs(self.pool) do ours = ours or other == pg end
    if not ours then return nil, "connection not from this pool" end
    if not pg.reserved then return nil, "connection not reserved" end
    if pg.transaction_status ~= "I" then pg:query "rollback" end
    pg.reserved = nil
    return true
end

function Pool:pool_size()
    return #self.pool
end

function Pool:active_connections()
    local count = 0
    for _, pg in ipairs(self.pool) do
        if pg.busy then count = count + 1 end
    end
    return count
end

for _, name in ipairs {
    "escape_literal", "escape_identifier", "encode_bytea", "decode_bytea", "setup_hstore",
} do
    Pool[name] = Postgres[name]
end
for _, name in ipairs { "NULL", "PG_TYPES", "type_deserializers" } do Pool[name] = Postgres[name] end

function Pool:__tostring()
    return ("<PostgresPool size: %d>"):format(#self.pool)
end

local function new(options)
    return setmetatable({ config = options or {}, pool = {} }, Pool)
end

pools.new = new
pools.PostgresPool = setmetatable({ __base = Pool }, {
    __index = Pool,
    __call = function(_, options)
        return new(options)
    end,
})

return pools
