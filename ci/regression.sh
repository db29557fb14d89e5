#!/usr/bin/env bash
# Checks system calls and user instructions of an echo server, and context switches while it is
# idle, against limits. These figures are reproducible. Times are not checked. Also limits the
# instructions that the black box and the records of tasks add to an echo, by comparison with
# servers built without them.
#
# usage: ci/regression.sh
#
# Needs valgrind, and perf or strace. Installs missing tools with apt-get if permitted. Builds in
# benches/target. Fails if a figure exceeds its limit or cannot be measured.
set -euo pipefail
cd "$(dirname "$0")/../benches"
exec </dev/null

missing=()
command -v valgrind >/dev/null || missing+=(valgrind)
command -v perf >/dev/null || command -v strace >/dev/null || missing+=(strace)
if ((${#missing[@]})); then
    timeout 300 apt-get install -y "${missing[@]}" >/dev/null || {
        echo "ci/regression.sh needs ${missing[*]}; install them and run it again" >&2
        exit 1
    }
fi
readonly flags=${RUSTFLAGS:-} options=(--quiet --release --no-default-features --features netpoll)

# server NAME FLAGS: builds the server with these flags of rustc in benches/target/NAME.
server() {
    RUSTFLAGS="$flags $2" cargo build "${options[@]}" --bin server --target-dir "target/$1"
}
# Builds only the programs that are needed, because each is linked with LTO. Fat LTO mostly uses one
# CPU, so the builds run at the same time.
server no-black-box '--cfg netpoll_no_black_box' &
first=$!
server no-inspection '--cfg netpoll_no_black_box --cfg netpoll_no_records' &
second=$!
cargo build "${options[@]}" --bin compare --bin server --bin load --target-dir target
wait "$first"
wait "$second"
# `compare` starts the server and the load program of its own directory.
for name in no-black-box no-inspection; do
    cp target/release/compare target/release/load "target/$name/release/"
done
target/release/compare --check

# instructions FOLDER: prints the instructions per echo in the functions that serve a request. Those
# of other functions vary with the load of the machine.
instructions() {
    "$1/release/compare" --case profile --only netpoll | sed -n 's/^in the functions that serve a request: //p'
}
all=$(instructions target)
no_black_box=$(instructions target/no-black-box)
no_inspection=$(instructions target/no-inspection)

# hold NAME MORE LESS LIMIT: fails if MORE - LESS exceeds LIMIT.
hold() {
    awk -v name="$1" -v more="$2" -v less="$3" -v limit="$4" 'BEGIN {
        if (more + 0 == 0 || less + 0 == 0) { print name ": not measured"; exit 1 }
        holds = more - less <= limit
        printf "%s %s: %.1f instructions per echo, limit %s\n", holds ? "holds " : "BROKEN", name, more - less, limit
        exit !holds
    }'
}
hold "black box" "$all" "$no_black_box" 29
hold "records of tasks" "$no_black_box" "$no_inspection" 15
