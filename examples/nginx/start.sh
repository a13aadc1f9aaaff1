#!/bin/sh
# The whole example in one command: installs what is missing (apt, as root), builds the module, makes a PostgreSQL of its
# own (or uses DATABASE_URL, into which it then loads schema.sql), and runs nginx until Ctrl-C.
#
#   sh examples/nginx/start.sh [FOLDER [PORT]]
#
# FOLDER (made if it is not there; without one a temporary one that is removed at the end) then holds everything:
# nginx.conf and policy.lua to edit, logs, and the database. PORT is 8080.
set -eu

here=$(cd "$(dirname "$0")" && pwd -P)
root=$(cd "$here/../.." && pwd -P)
. "$root/tests/support/setup.sh"

need_packages $build_packages $nginx_packages
configured "$build" || configure "$build" WEIR_TESTS=OFF WEIR_BENCH=OFF || exit 1
compile "$build" weir_ngx_module || exit 1

port=${2:-8080}
folder=${1:-}
temporary=
if [ -z "$folder" ]; then
    folder=$(mktemp -d)
    temporary=$folder
fi
mkdir -p "$folder/run" "$folder/logs"
folder=$(cd "$folder" && pwd -P)
chmod 755 "$folder" "$folder/run" # the workers are nobody in particular
if [ "$(id -u)" = 0 ] && ! setpriv --reuid=nobody --regid=nogroup --clear-groups test -x "$folder"; then
    fail "$folder lies where only its owner may go, and nginx's workers are the user nobody: name a folder elsewhere, such as /srv/weir"
fi

postmaster=
nginx=
finish() {
    trap - EXIT HUP INT TERM
    [ -z "$nginx" ] || kill -QUIT "$nginx" 2>/dev/null || true
    [ -z "$nginx" ] || wait "$nginx" 2>/dev/null || true
    [ -z "$postmaster" ] || kill -INT "$postmaster" 2>/dev/null || true
    [ -z "$postmaster" ] || wait "$postmaster" 2>/dev/null || true
    [ -z "$temporary" ] || rm -rf "$temporary"
}
trap finish EXIT
trap 'exit 0' HUP INT TERM

# ---- the database ------------------------------------------------------------------------------------------------

# PostgreSQL refuses to run as root.
as_postgres() {
    if [ "$(id -u)" = 0 ]; then
        setpriv --reuid=postgres --regid=postgres --init-groups --reset-env "$@"
    else
        "$@"
    fi
}

start_postgres() {
    bin=$(pg_config --bindir)
    data=$folder/postgres
    if [ ! -e "$data/PG_VERSION" ]; then
        mkdir -p "$data"
        [ "$(id -u)" != 0 ] || chown postgres "$data"
        chmod 700 "$data"
        as_postgres "$bin/initdb" -N --no-instructions -D "$data" -A trust -U postgres -E UTF8 --locale=C >"$folder/logs/initdb.log"
        fresh=yes
    fi
    mkdir -p "$folder/socket"
    [ "$(id -u)" != 0 ] || chown postgres "$folder/socket"
    if [ "$(id -u)" = 0 ]; then
        setpriv --reuid=postgres --regid=postgres --init-groups --reset-env \
            "$bin/postgres" -D "$data" -k "$folder/socket" -c listen_addresses= >"$folder/logs/postgres.log" 2>&1 &
    else
        "$bin/postgres" -D "$data" -k "$folder/socket" -c listen_addresses= >"$folder/logs/postgres.log" 2>&1 &
    fi
    postmaster=$!
    until [ "$(sed -n 8p "$data/postmaster.pid" 2>/dev/null | tr -d ' ')" = ready ]; do
        kill -0 "$postmaster" 2>/dev/null || fail "PostgreSQL did not start; see $folder/logs/postgres.log"
        sleep 0.05
    done
    DATABASE_URL="host=$folder/socket dbname=postgres"
    admin="$DATABASE_URL user=postgres"
}

fresh=
if [ -n "${DATABASE_URL:-}" ]; then
    admin=$DATABASE_URL
    fresh=yes
else
    start_postgres
fi
export DATABASE_URL
[ -z "$fresh" ] || psql -q -v ON_ERROR_STOP=1 -d "$admin" -f "$here/schema.sql" || fail "The schema could not be loaded."

# ---- nginx ---------------------------------------------------------------------------------------------------------

[ -n "${CLAIMS_KEY:-}" ] || CLAIMS_KEY=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
export CLAIMS_KEY
mkdir -p "$folder/modules"
ln -sf /usr/lib/nginx/modules/ndk_http_module.so /usr/lib/nginx/modules/ngx_http_lua_module.so \
    "$build/ngx_http_weir_module.so" "$folder/modules/"
[ -e "$folder/lua" ] || cp -R "$here/lua" "$folder/lua"
rm -rf "$folder/lua/weir" "$folder/lua/resty" # always those of the module; the tree itself may be in root's private home
cp -R "$root/lua/weir" "$root/lua/resty" "$folder/lua/"
[ -e "$folder/policy.lua" ] || cp "$here/policy.lua" "$folder/policy.lua"
sed "s/127\.0\.0\.1:8080/127.0.0.1:$port/" "$here/nginx.conf" >"$folder/nginx.conf"

nginx -p "$folder" -c nginx.conf -g 'daemon off;' -e logs/error.log &
nginx=$!
until [ -s "$folder/run/nginx.pid" ]; do
    kill -0 "$nginx" 2>/dev/null || fail "nginx did not start; see $folder/logs/error.log"
    sleep 0.05
done

ada=$(printf '{"sub":"ada"}' | openssl base64 -A).$(printf '{"sub":"ada"}' | openssl dgst -sha1 -hmac "$CLAIMS_KEY" -binary | openssl base64 -A)
cat <<END

It runs in $folder. Try, from another terminal:

  curl -H 'X-Claims: $ada' http://127.0.0.1:$port/api/contacts
  curl -H 'X-Claims: $ada' -d name=Lord http://127.0.0.1:$port/api/contacts
  curl http://127.0.0.1:$port/admin/contacts/count
  curl http://127.0.0.1:$port/health
  curl http://127.0.0.1:$port/metrics

and http://127.0.0.1:$port/weir/ in a browser. After a change of policy.lua or nginx.conf, for all workers at once:

  nginx -p $folder -c nginx.conf -e logs/error.log -s reload

Ctrl-C ends all of it.
END
wait "$nginx" || fail "nginx ended; see $folder/logs/error.log"
