#!/bin/sh
# All tests in one command: installs what is missing (apt, as root), builds, runs ctest, counts single cases.
#
#     sh tests/run.sh [--sanitize address,undefined | --sanitize thread | --valgrind] [arguments for ctest]
#
# --sanitize LIST   in a build of its own, with these sanitizers
# --valgrind        the Lua tests alone, under valgrind
# ctest's own       -L unit (a label: unit sim pg fault lua54 luajit cli nginx page live lint), -R REGEX (names), -j N
#
# The last line is always `N passed, N failed`; the exit code is 0 only if something ran and nothing failed.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd -P)
. "$root/tests/support/setup.sh"

usage() {
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

sanitize=
valgrind=OFF
while [ $# -gt 0 ]; do
    case $1 in
        --sanitize) [ $# -ge 2 ] || usage; sanitize=$2; shift 2 ;;
        --sanitize=*) sanitize=${1#*=}; shift ;;
        --valgrind) valgrind=ON; shift ;;
        --help) usage ;;
        *) break ;;
    esac
done
case $sanitize in
    "" | address | undefined | thread | address,undefined | undefined,address | thread,undefined) ;;
    *) printf 'run.sh: no such sanitizers: %s (address, undefined, thread, address,undefined)\n' "$sanitize" >&2
       exit 2 ;;
esac
if [ -n "$sanitize" ] && [ $valgrind = ON ]; then
    printf 'run.sh: --sanitize and --valgrind exclude each other\n' >&2
    exit 2
fi

nginx=ON # its module cannot be loaded with a sanitizer's runtime, nor run under valgrind
if [ -n "$sanitize" ] || [ $valgrind = ON ]; then
    nginx=OFF
fi
packages="$build_packages $nginx_packages $test_packages"
directory=$build
if [ -n "$sanitize" ]; then
    directory=$build/sanitize-$(printf %s "$sanitize" | tr , -)
elif [ $valgrind = ON ]; then
    packages="$packages $valgrind_packages"
    directory=$build/valgrind
fi

need_packages $packages
[ $nginx = OFF ] || need_browser "$directory"
configure "$directory" WEIR_TESTS=ON WEIR_BENCH=ON WEIR_LUAJIT=ON "WEIR_NGINX=$nginx" "WEIR_SANITIZE=$sanitize" WEIR_VALGRIND=$valgrind &&
    compile "$directory" || {
    say "The build failed, which counts as one failure."
    say "0 passed, 1 failed"
    exit 1
}

# ThreadSanitizer 12 cannot place its shadow memory when the kernel scatters mappings over more than 28 bits.
launcher=
case $sanitize in
    *thread*)
        bits=$(cat /proc/sys/vm/mmap_rnd_bits 2>/dev/null || echo 28)
        [ "$bits" -le 28 ] || launcher="setarch $(uname -m) -R" ;;
esac

log=$directory/tests.log
{
    status=0
    $launcher ctest --test-dir "$directory" --verbose -j "$(nproc)" "$@" </dev/null 2>&1 || status=$?
    echo "ctest ended with $status"
} | lua5.4 "$root/tests/support/tally.lua" "$log"
