# Sourced by examples/quickstart.sh and tests/run.sh: installs what is missing, configures, builds. Plain sh.
# Expects $root, the top of the source tree. Everything built goes to ./build, or to $WEIR_BUILD.

build=${WEIR_BUILD:-$root/build}

# What each Debian calls PostgreSQL's server and OpenResty's branch of LuaJIT: 12 has another LuaJIT beside it, 13 only that.
case $(sed -n 's/^VERSION_ID="\{0,1\}\([0-9]*\).*/\1/p' /etc/os-release 2>/dev/null) in
    13) postgres=postgresql-17 jit=luajit jit_headers=libluajit-5.1-dev ;;
    *) postgres=postgresql-15 jit=luajit2 jit_headers=libluajit2-5.1-dev ;;
esac

build_packages="cmake ninja-build gcc libc6-dev pkg-config libedit-dev libncurses-dev libpq-dev libuv1-dev libmicrohttpd-dev lua5.4 liblua5.4-dev lua-dkjson
$postgres"
test_packages="curl g++ libcmocka-dev lua-unit lua-socket luarocks openssl pgbouncer prometheus wrk $jit $jit_headers"
nginx_packages="nginx nginx-dev libnginx-mod-http-lua lua-resty-core openssl $jit_headers"
valgrind_packages="valgrind libc6-dbg"

say() {
    printf '%s\n' "$*"
}

fail() {
    printf '%s\n' "$*" >&2
    exit 1
}

# Runs a command in silence; if it fails, shows the end of what it said.
quietly() {
    quiet_log=$(mktemp)
    if "$@" >"$quiet_log" 2>&1 </dev/null; then
        rm -f "$quiet_log"
        return 0
    fi
    printf 'This failed: %s\n' "$*" >&2
    grep -v '^\[[0-9]*/[0-9]*\] ' "$quiet_log" | tail -n 60 >&2 # without ninja's lines of what went well
    rm -f "$quiet_log"
    return 1
}

missing_of() {
    for package in "$@"; do
        status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) || status=
        [ "$status" = installed ] || printf '%s ' "$package"
    done
}

apt_install() {
    quietly env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=300 \
        install --no-install-recommends "$@"
}

# Debian makes and starts a cluster "main" when a server package is installed. Nobody asked for one: tests and examples
# start servers of their own. Its setting for that is changed while we install, and put back.
apt_install_without_cluster() {
    settings=/etc/postgresql-common/createcluster.conf
    apt_install postgresql-common || return 1
    if ! grep -q '^#create_main_cluster' $settings 2>/dev/null; then
        apt_install "$@"
        return
    fi
    saved=$(mktemp)
    cp -p $settings "$saved"
    trap 'cp -p "$saved" $settings; rm -f "$saved"' EXIT
    trap 'exit 1' HUP INT TERM
    sed -i 's/^#create_main_cluster.*/create_main_cluster = false/' $settings
    apt_install "$@" && installed=0 || installed=1
    cp -p "$saved" $settings
    rm -f "$saved"
    trap - EXIT HUP INT TERM
    return $installed
}

# The packages of PgBouncer and nginx start a server at once and at each boot. Nobody asked for one: tests and examples start
# servers of their own.
apt_install_without_services() {
    policy=/usr/sbin/policy-rc.d
    made=
    if [ ! -e $policy ]; then
        trap 'rm -f $policy' EXIT
        trap 'exit 1' HUP INT TERM
        made=yes
        printf '#!/bin/sh\nexit 101\n' >$policy && chmod 755 $policy || return 1
    fi
    apt_install "$@" && installed=0 || installed=1
    [ -z "$made" ] || rm -f $policy
    trap - EXIT HUP INT TERM
    for package in "$@"; do
        case $package in
            pgbouncer | nginx) rm -f /etc/systemd/system/multi-user.target.wants/$package.service ;;
        esac
    done
    return $installed
}

apt_install_all() {
    services=
    others=
    for package in "$@"; do
        case $package in
            pgbouncer | *nginx* | lua-resty-core) services="$services $package" ;;
            *) others="$others $package" ;;
        esac
    done
    case " $others " in
        *" $postgres "*) apt_install_without_cluster $others ;;
        "  ") ;;
        *) apt_install $others ;;
    esac || return 1
    [ -z "$services" ] || apt_install_without_services $services
}

# need_packages NAME...: present afterwards, or the script has ended with a sentence.
need_packages() {
    command -v dpkg-query >/dev/null 2>&1 ||
        fail "This script sets up Debian 12 and 13. Elsewhere, install the like of: $* ; then use cmake and ctest directly."
    missing=$(missing_of "$@")
    [ -n "$missing" ] || return 0
    [ "$(id -u)" = 0 ] || fail "Missing packages; run as root: apt-get install --no-install-recommends $missing"
    say "Installing: $missing"
    quietly apt-get -qq update || fail "apt-get update failed; the network or the package sources need a look."
    apt_install_all $missing || fail "The packages could not be installed."
}

# need_browser DIR: chromium, node, and below DIR/node what tests/page/package.json names, in exactly these versions. Node may
# be there from elsewhere, with an npm of its own that Debian's would quarrel with.
need_browser() {
    browser_packages=chromium
    command -v node >/dev/null 2>&1 || browser_packages="$browser_packages nodejs"
    command -v npm >/dev/null 2>&1 || browser_packages="$browser_packages npm"
    need_packages $browser_packages
    wanted=$root/tests/page/package.json
    cmp -s "$wanted" "$1/node/package.json" && [ -e "$1/node/complete" ] && return
    say "Installing what the tests of the page need of npm"
    rm -rf "$1/node"
    mkdir -p "$1/node"
    cp "$wanted" "$1/node/"
    quietly npm install --prefix "$1/node" --no-audit --no-fund --ignore-scripts --no-package-lock ||
        fail "npm could not install what $wanted names; the network needs a look."
    : >"$1/node/complete"
}

# configured DIR NAME=VALUE...: true if DIR was configured from this tree with these values.
configured() {
    cache=$1/CMakeCache.txt
    grep -qx "CMAKE_HOME_DIRECTORY:INTERNAL=$root" "$cache" 2>/dev/null || return 1
    shift
    for setting in "$@"; do
        grep -qx "${setting%%=*}:[A-Z]*=${setting#*=}" "$cache" || return 1
    done
}

# configure DIR NAME=VALUE...: does nothing where nothing changed.
configure() {
    if configured "$@"; then
        return 0
    fi
    directory=$1
    shift
    definitions=
    for setting in "$@"; do
        definitions="$definitions -D$setting"
    done
    fresh=
    grep -qsx "CMAKE_HOME_DIRECTORY:INTERNAL=$root" "$directory/CMakeCache.txt" || fresh=--fresh
    say "Configuring $directory"
    quietly cmake -S "$root" -B "$directory" -G Ninja $fresh $definitions
}

# compile DIR [TARGET...]
compile() {
    directory=$1
    shift
    say "Building $directory"
    quietly cmake --build "$directory" ${1+--target "$@"}
}
