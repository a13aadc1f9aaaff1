#!/bin/sh
# Weir in one command: installs what is missing (apt, as root), builds into ./build or $WEIR_BUILD, and runs
# examples/quickstart.lua, which starts a PostgreSQL of its own and removes it. With DATABASE_URL set it uses that server.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd -P)
. "$root/tests/support/setup.sh"

need_packages $build_packages
if ! configured "$build"; then
    configure "$build" WEIR_TESTS=OFF WEIR_BENCH=OFF || exit 1
fi
compile "$build" weir weir_static weir_uv weir_uv_static weir_lua54 weir_cli || exit 1
exec "$build/weir" run "$root/examples/quickstart.lua" "$@"
