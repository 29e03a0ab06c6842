# Starting, finding and killing processes by pid. A pid counts only with its start time, so that a reused one is never killed. Sourced.

PIDS=$RUN/pids
LOGS=$RUN/logs

start_time() { # pid: nothing for one that is dead and not yet reaped
    local stat
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
    awk '$1 != "Z" { print $20 }' <<<"${stat##*) }" # counted after the command, which may hold spaces
}

remember() { # name pid
    mkdir -p "$PIDS"
    start_time "$2" >"$PIDS/$1.started"
    echo "$2" >"$PIDS/$1.pid"
}

is_running() { # name
    [[ -e $PIDS/$1.pid && $(start_time "$(<"$PIDS/$1.pid")") == "$(<"$PIDS/$1.started")" ]]
}

# start NAME COMMAND…: in a session of its own; nothing happens if it runs already.
start() {
    local name=$1
    shift
    is_running "$name" && return
    mkdir -p "$LOGS"
    setsid "$@" </dev/null >>"$LOGS/$name.log" 2>&1 &
    remember "$name" $!
}

# SIGKILL: an API server with open watches takes a minute to obey SIGTERM, and nothing here needs a farewell.
kill_started() { # name
    ! is_running "$1" || kill -KILL "$(<"$PIDS/$1.pid")"
    forget "$1"
}

forget() { # name: once it is dead
    while is_running "$1"; do sleep 0.02; done
    rm -f "$PIDS/$1.pid" "$PIDS/$1.started"
}

# wait_for SECONDS NAME COMMAND…: until COMMAND succeeds; shows the end of the logs if it never does, or if NAME dies.
wait_for() {
    local seconds=$1 name=$2 deadline=$((SECONDS + $1))
    shift 2
    until "$@" >/dev/null 2>&1; do
        if ((SECONDS >= deadline)) || ! is_running "$name"; then
            tail -n 20 "$LOGS"/*.log >&2
            die "$name: not ready after $seconds s, or dead: $*"
        fi
        sleep 0.1
    done
}
