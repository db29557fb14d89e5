#!/usr/bin/env bash
# Runs the models of models/ under shuttle, with random schedules and PCT schedules in equal
# numbers. Also runs the injected bugs. Shuttle must find each of them, except those that need weak
# memory, which it must not find (models/src/schedules.rs lists these; loom finds them).
#
# usage: ci/shuttle.sh [SCHEDULES]      the total number, split evenly between the models;
#                                       default: 1,000,000
#
# NETPOLL_SEED=n repeats the schedules of a run. To replay the schedule that a failure has printed:
#   NETPOLL_REPLAY=SCHEDULE cargo test -p netpoll-models --release --features shuttle MODEL
# The output is in target/shuttle.txt, and is printed if a model fails.
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null
readonly total=${1:-1000000}
readonly log=target/shuttle.txt
mkdir -p target

test=(cargo test -p netpoll-models --release --features shuttle --tests --)
tests=$("${test[@]}" --list 2>"$log") || {
    cat "$log" >&2
    exit 1
}
models=$(grep ': test$' <<<"$tests" | grep -vc '^finds_')
export NETPOLL_SCHEDULES=$(((total + models - 1) / models))
"${test[@]}" --nocapture >"$log" 2>&1 || {
    cat "$log" >&2
    exit 1
}
# Every model must have run, with at least the requested number of schedules in total.
awk -v models="$models" -v total="$total" '
    match($0, /played [0-9]+ schedules/) { played++; schedules += substr($0, RSTART + 7) }
    /found: `/ { found++ }
    /out of reach: `/ { beyond++ }
    END {
        printf "%d schedules: %d models hold; %d injected bugs found, %d need weak memory\n", schedules, played, found, beyond
        exit played != models || schedules < total
    }' "$log"
