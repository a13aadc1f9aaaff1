--- Who a request is from: the header X-Claims holds a JSON object in base64, a point, and the object's HMAC-SHA1 in
-- base64, made by a gateway that knows CLAIMS_KEY.

local json = require "weir.json"

local claims = {}

local key = os.getenv "CLAIMS_KEY"

-- In the same time wherever the two differ.
local function equal(a, b)
    if #a ~= #b then return false end
    local different = 0
    for i = 1, #a do
        if a:byte(i) ~= b:byte(i) then different = different + 1 end
    end
    return different == 0
end

--- The header's value for a table of claims.
function claims.sign(object)
    local text = assert(json.encode(object))
    return ngx.encode_base64(text) .. "." .. ngx.encode_base64(ngx.hmac_sha1(key, text))
end

-- The claims of a header's value, or nil.
local function verified(header)
    local text, signature = (header or ""):match "^([^.]+)%.([^.]+)$"
    text = text and ngx.decode_base64(text)
    signature = signature and ngx.decode_base64(signature)
    if not text or not signature or not equal(signature, ngx.hmac_sha1(key, text)) then return nil end
    local object = json.decode(text)
    return type(object) == "table" and type(object.sub) == "string" and object or nil
end

--- Ends the request with 401 unless it carries claims; else they are in ngx.ctx.claims.
function claims.check()
    ngx.ctx.claims = key and verified(ngx.var.http_x_claims)
    if ngx.ctx.claims then return end
    ngx.status = 401
    ngx.say '{"error":"X-Claims is missing or not signed"}'
    return ngx.exit(401)
end

return claims
