-- What `nginx -t` says to a configuration that cannot be: file, line, reason. And to one that can.

local fixture = require "ngxfixture"
local lu = require "luaunit"

TestConfig = { tearDown = fixture.stop_all }

-- What nginx -t says when `from` in the configuration is `to`; the policy may be another.
local function verdict(from, to, policy)
    local nginx = fixture.prepare { policy = policy }
    local path = nginx.folder .. "/nginx.conf"
    local text, count = fixture.read(path):gsub(from:gsub("%p", "%%%0"), (to:gsub("%%", "%%%%")))
    lu.assertTrue(count > 0, "the configuration has no " .. from)
    fixture.write(path, text)
    local said, good = nginx:test()
    local line = 0
    for number, content in ipairs((function()
        local lines = {}
        for one in (text .. "\n"):gmatch "(.-)\n" do lines[#lines + 1] = one end
        return lines
    end)()) do
        if to ~= "" and content:find(to, 1, true) then line = number break end
    end
    fixture.sh("rm -rf %s", nginx.folder)
    return said, good, ("%s:%d"):format(path, line)
end

local function assert_refused(reason, from, to, policy)
    local said, good, place = verdict(from, to, policy)
    lu.assertFalse(good, to)
    lu.assertStrContains(said, reason)
    lu.assertStrContains(said, place)
end

function TestConfig:test_a_good_one_is_good()
    local said, good = verdict("weir_status;", "weir_status page;")
    lu.assertTrue(good, said)
end

function TestConfig:test_bad_arguments_of_directives()
    assert_refused('invalid size "16x" of "weir_area"', "16m;", "16x;")
    assert_refused('invalid number of arguments in "weir_area"', " 16m;", ";#area")
    assert_refused('invalid document "helth" of "weir_status"', "weir_status;", "weir_status helth;")
    assert_refused('"weir_status" directive is duplicate', "weir_status;", "weir_status; weir_status health;")
    assert_refused("invalid value", "weir_area ", "weir_drain_timeout soon; weir_area ")
    assert_refused('"weir_area" is given twice', "weir_policy ", "weir_area /tmp/other 16m; weir_policy ")
    assert_refused('"weir_policy" is given twice', "weir_policy ", "weir_policy nginx.conf; weir_policy ")
end

function TestConfig:test_one_needs_the_other()
    local said = verdict("weir_policy ", "#weir_policy ")
    lu.assertStrContains(said, '"weir_area": there is no "weir_policy"')
    said = verdict("weir_area ", "#weir_area ")
    lu.assertStrContains(said, '"weir_policy": there is no "weir_area"')
end

function TestConfig:test_areas_that_the_workers_could_not_make()
    assert_refused("the folder /proc/nowhere is not there and cannot be made", "weir_area ", "weir_area /proc/nowhere/area 16m; #")
    assert_refused("/etc/hostname is no folder", "weir_area ", "weir_area /etc/hostname/area 16m; #")
    assert_refused("/tmp is there and is no file", "weir_area ", "weir_area /tmp 16m; #")
    local said, good = verdict("user root;", "user nobody nogroup;")
    lu.assertFalse(good)
    lu.assertStrContains(said, "the workers run as nobody, who may not write in")
end

function TestConfig:test_an_area_that_is_too_small_says_how_large_it_must_be()
    local said, good, place = verdict("16m;", "64k;")
    lu.assertFalse(good)
    lu.assertStrContains(said, "area_size is 65536 bytes")
    lu.assertStrContains(said, "nginx.conf:")
    local least = said:match "need (%d+) at least"
    local again, fine = verdict("16m;", least .. ";")
    lu.assertTrue(fine, again)
    lu.assertStrContains(place, "nginx.conf")
end

function TestConfig:test_policies_that_cannot_be()
    assert_refused("cannot be read (2: No such file", "/policy.lua;", "/nowhere.lua;")
    assert_refused("is no file", "/policy.lua;", ";")
    local policies = {
        { "return {", "policy.lua:1: unexpected symbol near '<eof>'" },
        { "\n\nfoo(", "policy.lua:3:" },
        { "return 'x'", "returns a string; a policy file returns the table of options" },
        { "error { }", "table:" },
        { "return { backends = { primary = 'x' } }", "clients is missing" },
        { fixture.policy "breaker = { windw = 1 }", "breaker.windw" },
        { fixture.policy "timeout = -1", "timeout" },
        { fixture.policy "area = '/x'", "weir_area sets it" },
        { (fixture.policy():gsub("primary = %b\"\"", "primary = 'host=a bad option=1'")), "backends.primary" },
        { "return { " .. (" "):rep(300000) .. "}", "has 300010 bytes; 1 to 262144 are allowed" },
    }
    for _, case in ipairs(policies) do assert_refused(case[2], "weir_policy ", "weir_policy ", case[1]) end
end

function TestConfig:test_modules_in_the_wrong_order_or_missing_are_told_with_versions()
    local lua_module = "load_module /usr/lib/nginx/modules/ngx_http_lua_module.so;"
    local said, good = verdict(lua_module, "")
    lu.assertFalse(good)
    lu.assertStrContains(said, "ngx_http_lua_module is not loaded")
    lu.assertStrContains(said, "weir 0.1.0 (for nginx 1.")
end

function TestConfig:test_a_policy_of_several_files_is_tried_as_far_as_nginx_t_can()
    local nginx = fixture.prepare { policy = "local limits = require 'limits'\n" .. fixture.policy "timeout = limits.timeout," }
    fixture.write(nginx.folder .. "/limits.lua", "return { timeout = 3 }")
    local path = nginx.folder .. "/nginx.conf"
    fixture.write(path, (fixture.read(path):gsub("weir_area", ("lua_package_path '%s/?.lua;;'; weir_area"):format(nginx.folder))))
    local said, good = nginx:test()
    lu.assertTrue(good, said)
    lu.assertStrContains(said, "was not tried further than")
    fixture.sh("rm -rf %s", nginx.folder)
end

os.exit(lu.LuaUnit.run())
