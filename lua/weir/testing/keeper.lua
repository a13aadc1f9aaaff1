-- The shell half of weir.testing: the program that starts a throw-away PostgreSQL, serves commands about
-- it, and removes every trace when the Lua process is gone. It comes to `sh -s` on its stdin: nothing of it
-- shows in `ps`.
--
-- Two processes. The *guardian* reads the pipe that only the Lua process holds: its end means that Lua
-- closed the server or died in whatever way, and the guardian cleans up. The *keeper* is the parent of the
-- postmaster (somebody must reap it) and does what Lua asks through the FIFO "commands". Descriptors: 3 the
-- replies, 5 the commands, 9 the lock.
--
-- Set before this text runs, single-quoted by testing.lua: NAME BIN VERSION TEMPORARY SETTINGS HBA TCP
-- DURABLE PATH.

return [==[
{
set -u
umask 077
LC_ALL=C TZ=UTC; export LC_ALL TZ PATH
# The server's life hangs on the Lua process alone: a Ctrl-C or hang-up meant for that one is none of our
# business.
trap '' INT HUP TERM PIPE

reply() { printf '%s\n' "$*" >&3; }

# ---- where the server's programs are -----------------------------------------------------------------------

version_of() { set -- $("$1/postgres" --version 2>/dev/null); printf %s "${3:-}"; }

is_server() {
    [ -x "$1/postgres" ] && [ -x "$1/initdb" ] || return 1
    number=$(version_of "$1")
    [ -n "$number" ] && { [ -z "$VERSION" ] || [ "${number%%[!0-9]*}" = "$VERSION" ]; }
}

# A postgres found in PATH may be a link; its companions are where it really lives.
folder_of() { dirname "$(readlink -f "$1" 2>/dev/null || printf %s "$1")"; }

find_server() {
    if [ -n "$BIN" ]; then
        bin=$BIN
        is_server "$bin"
        return
    fi
    program=$(command -v postgres) && bin=$(folder_of "$program") && is_server "$bin" && return
    for bin in $(printf '%s\n' /usr/lib/postgresql/*/bin | sort -t/ -k5,5nr) \
               "$(pg_config --bindir 2>/dev/null)"; do
        is_server "$bin" && return
    done
    return 1
}

report_no_server() {
    what="no PostgreSQL ${VERSION:+$VERSION }server binaries found"
    looked=${BIN:-"PATH, /usr/lib/postgresql/*/bin, pg_config"}
    reply "0 error $what (looked in $looked); install postgresql-${VERSION:-15}"
}

# ---- the private directory ---------------------------------------------------------------------------------

# A socket's path has to fit into 107 bytes and goes into postgresql.conf and into URLs, hence the limits.
is_base() {
    case $1 in /*) ;; *) return 1 ;; esac
    case $1 in *[!A-Za-z0-9_./+=@-]*) return 1 ;; esac
    [ ${#1} -le 60 ] && [ -d "$1" ] && [ -w "$1" ] && [ -x "$1" ]
}

# Files in memory are ten times as quick to make as on disk, and none of them is to last. But a gigabyte has
# to be free, both there and in the machine.
is_roomy() {
    is_base "$1" && [ "$(df -Pk "$1" | awk 'NR == 2 { print $4 }')" -ge 1048576 ] &&
        [ "$(awk '/^MemAvailable:/ { print $2 }' /proc/meminfo)" -ge 1048576 ]
} 2>/dev/null

make_directory() {
    base=${TEMPORARY%/}
    is_base "$base" || base=/tmp
    place=$base
    [ -z "$TEMPORARY$DURABLE" ] && is_roomy /dev/shm && place=/dev/shm
    dir=$(mktemp -d "$place/weir-$NAME.XXXXXX") || return 1
    data=$dir/data
    mkfifo "$dir/commands" && exec 5<>"$dir/commands" && cd "$dir" || return 1
    : >"$dir/log"
}

# ---- the template: initdb takes half a second, a copy of its work a tenth of that --------------------------

run_initdb() {
    "$bin/initdb" -N -D "$1" -A trust -U postgres -E UTF8 --locale=C --wal-segsize=1 \
        </dev/null >"$dir/initdb.log" 2>&1
}

# Others may have put something of their own at this well-known place, or a cleaner may have thinned it out.
is_ours() { [ -d "$1" ] && [ ! -h "$1" ] && [ -O "$1" ] && chmod 700 "$1"; }
is_whole() { [ -r "$1.count" ] && [ "$(cat "$1.count")" = "$(find "$1" 2>/dev/null | wc -l)" ]; }

make_template() {
    flock -x 9
    is_whole "$template" && return # somebody else was quicker
    rm -rf "$template" "$template.count"
    run_initdb "$template" && find "$template" | wc -l >"$template.count"
}

make_data() {
    cache=$base/weir-testing-$(id -u)
    mkdir "$cache" 2>/dev/null
    if ! is_ours "$cache" || ! command -v flock >/dev/null; then
        run_initdb "$data"
        return
    fi
    template=$cache/$(printf '%s %s' "$bin" "$number" | cksum | tr ' ' -)-$number
    exec 9>>"$cache/lock"
    flock -s 9
    is_whole "$template" || make_template && cp -Rp "$template" "$data"
    set -- $?
    exec 9>&-
    return "$1"
}

configure() {
    cat >>"$data/postgresql.conf" <<END
listen_addresses = '${TCP:+127.0.0.1}'
unix_socket_directories = '$dir'
logging_collector = off
log_line_prefix = '%m [%p] '
$SETTINGS
END
    cat >"$data/pg_hba.conf" <<END
local all postgres trust
$HBA
local all all trust
host all all 127.0.0.1/32 trust
local replication all trust
host replication all 127.0.0.1/32 trust
END
}

# ---- the server --------------------------------------------------------------------------------------------

server=0 # pid of the postmaster, 0 before the first start
port=5432

# A process that nobody has reaped yet still takes signals, but is no longer alive.
alive() {
    [ "$1" -gt 0 ] && kill -0 "$1" 2>/dev/null || return 1
    state=''
    read -r _ _ state _ 2>/dev/null <"/proc/$1/stat"
    [ "$state" != Z ]
}

children_of() {
    cat "/proc/$1/task/$1/children" 2>/dev/null && return
    ps -A -o ppid= -o pid= | awk -v parent="$1" '$1 == parent { print $2 }'
}

# A stopped process hears nothing but this.
wake() { kill -s CONT "$1" $(children_of "$1") 2>/dev/null; }

# Waits in steps of 3 ms or so until the process is gone: $2 of them at most, fewer if Lua is gone meanwhile.
await_end() {
    steps=$2
    while alive "$1"; do
        [ "$steps" -gt 0 ] && { [ "${3:-}" != patient ] || [ ! -e "$dir/orphaned" ]; } || return 1
        steps=$((steps - 1))
        sleep 0.002
    done
}

read_pidfile() {
    owner='' state='' line=0
    while [ $line -lt 8 ] && read -r field; do
        line=$((line + 1))
        case $line in 1) owner=$field ;; 8) state=$field ;; esac
    done 2>/dev/null <"$data/postmaster.pid"
}

await_ready() {
    steps=20000
    while [ $steps -gt 0 ] && alive "$server"; do
        read_pidfile
        [ "$owner" = "$server" ] && [ "$state" = ready ] && return 0
        steps=$((steps - 1))
        sleep 0.002
    done
    return 1
}

launch() {
    said=$(wc -l <"$dir/log")
    "$bin/postgres" -D "$data" -p "$port" </dev/null >>"$dir/log" 2>&1 3>&- 5>&- &
    server=$!
    await_ready
}

random_port() { echo $((10000 + $(od -An -N2 -tu2 /dev/urandom) % 22000)); }

# The port is chosen once: an URL stays good over restarts. Whether it is free, the server finds out by
# binding it.
launch_on_free_port() {
    attempts=20
    while [ $attempts -gt 0 ]; do
        port=$(random_port)
        launch && return 0
        last_words | grep -q 'TCP/IP sockets' || return 1
        attempts=$((attempts - 1))
    done
    return 1
}

# The first complaint since the last launch, without its time.
last_words() {
    tail -n +$((said + 1)) "$dir/log" | grep -E -m 1 'FATAL|PANIC|ERROR|unrecognized|invalid' |
        sed 's/^[^]]*] //'
}

start_server() {
    if alive "$server"; then reply "$1 ok"; return; fi
    how=launch
    [ -n "$TCP" ] && [ "$server" = 0 ] && how=launch_on_free_port
    if $how; then
        reply "$1 ok"
    else
        await_end "$server" 0 || kill -s KILL "$server"
        reply "$1 error the server did not start: $(last_words)"
    fi
}

stop_server() { # sequence mode seconds
    case $2 in smart) signal=TERM ;; fast) signal=INT ;; *) signal=QUIT ;; esac
    if alive "$server"; then
        kill -s $signal "$server"
        wake "$server"
    fi
    if await_end "$server" $(($3 * 330)) patient; then
        reply "$1 ok"
    else
        reply "$1 error the server did not stop within $3 s (mode $2) and is still running"
    fi
}

signal_server() { # sequence signal
    if alive "$server" && kill -s "$2" "$server"; then
        reply "$1 ok"
    else
        reply "$1 error the server is not running"
    fi
}

# The postmaster first when they stop, last when they go on: nobody is born meanwhile.
# A letter for each process, as ps gives it.
states_of() {
    for pid in "$@"; do
        sed 's/.*) //' "/proc/$pid/stat" 2>/dev/null || ps -o stat= -p "$pid" 2>/dev/null
    done
}

# A signal is sent in no time and obeyed a moment later: waits until none of the processes runs any more.
await_standstill() {
    steps=250
    while [ "$steps" -gt 0 ] && states_of "$@" | grep -q '^[^TZ]'; do
        steps=$((steps - 1))
        sleep 0.002
    done
}

# The postmaster first, so that nobody is born meanwhile.
freeze_server() { # sequence
    if alive "$server" && kill -s STOP "$server"; then
        await_standstill "$server"
        children=$(children_of "$server")
        kill -s STOP $children 2>/dev/null # one may have ended by itself
        await_standstill $children
        reply "$1 ok"
    else
        reply "$1 error the server is not running"
    fi
}

thaw_server() { # sequence
    if alive "$server"; then
        kill -s CONT $(children_of "$server") "$server" 2>/dev/null
        reply "$1 ok"
    else
        reply "$1 error the server is not running"
    fi
}

signal_backend() { # sequence pid signal
    for child in $(children_of "$server"); do
        [ "$child" = "$2" ] || continue
        kill -s "$3" "$2" 2>/dev/null && reply "$1 ok" && return
    done
    reply "$1 error process $2 is no backend of this server"
}

report_server() { if alive "$server"; then reply "$1 ok $server"; else reply "$1 ok"; fi; }

# A killed postmaster leaves shared memory behind, which only a next start of the same cluster finds again.
clean_after_kill() {
    steps=20
    while [ -e "$data/postmaster.pid" ] && [ $steps -gt 0 ]; do
        steps=$((steps - 1))
        "$bin/postgres" --single -D "$data" template1 </dev/null >/dev/null 2>&1 && return
        sleep 0.05
    done
}

end_server() {
    if alive "$1"; then
        kill -s QUIT "$1"
        wake "$1"
        await_end "$1" 3000 || kill -s KILL "$1" $(children_of "$1")
        await_end "$1" 300
    fi
    clean_after_kill
}

# ---- the two processes -------------------------------------------------------------------------------------

prepare() {
    make_data || { reply "0 error initdb failed: $(tail -n 1 "$dir/initdb.log")"; return; }
    configure
    psql=$bin/psql
    [ -x "$psql" ] || psql=$(command -v psql)
    start_server 1 3>"$dir/started"
    read -r _ answer <"$dir/started"
    case $answer in
    ok) reply "0 ok $port $number $dir"; reply "0 ok $psql"; reply "0 ok $bin" ;;
    *) reply "0 $answer" ;;
    esac
}

keep() {
    exec 2>"$dir/keeper.log"
    prepare
    while read -r sequence verb first second <&5; do
        case $verb in
        start) start_server "$sequence" ;;
        stop) stop_server "$sequence" "$first" "$second" ;;
        signal) signal_server "$sequence" "$first" ;;
        freeze) freeze_server "$sequence" ;;
        thaw) thaw_server "$sequence" ;;
        backend) signal_backend "$sequence" "$first" "$second" ;;
        pid) report_server "$sequence" ;;
        quit) break ;;
        esac
    done
    end_server "$server"
}

# A child of the Lua process may have inherited the pipe and outlive it (a daemon, say), so its pid is
# watched as well, twice a second. Where tail knows no --pid, the pipe alone has to do.
watch() { tail --pid="$PPID" -s 0.5 -f /dev/null 2>/dev/null && kill -s USR1 $$; }

await_orphanage() {
    orphaned=''
    trap 'orphaned=yes' USR1
    watch &
    watcher=$!
    while [ -z "$orphaned" ] && read -r _; do :; done
    while alive "$watcher"; do # its tail may not have begun yet; TERM is ignored here
        kill -s KILL $(children_of "$watcher")
        sleep 0.002
    done
    wait "$watcher"
}

guard() {
    exec 3>&- 2>/dev/null
    await_orphanage
    : >"$dir/orphaned"
    echo "0 quit" >&5
    wait "$keeper"
    read_pidfile # the keeper itself may have been killed
    case $owner in '' | *[!0-9]*) ;; *) end_server "$owner" ;; esac
    cd / && rm -rf "$dir"
}

bin='' number=''
if ! find_server; then
    report_no_server
elif make_directory; then
    keep &
    keeper=$!
    guard
else
    reply "0 error no private directory could be made under $place"
fi
exit
}
]==]
