#!/usr/bin/env bash
# Holds system calls, user instructions and idleness of an echo server to limits: figures that come out the same on every run. Times
# are not looked at. Needs valgrind, and perf or strace; installs the missing ones where apt-get and the rights are there.
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
cargo build --release --no-default-features --features netpoll
target/release/compare --check
