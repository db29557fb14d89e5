#!/usr/bin/env bash
# Runs the tests of faults, rows 3 to 7 of docs/RELIABILITY.md, and prints their figures. The row
# `exit` is not in that document: it checks that a server exits at most 50 ms after its drain time.
#
# usage: ci/faults.sh [--full] [errno|chaos|pressure|reuse|close|cancel|exit]...      default: all
#
# Without --full, the sizes are those of `cargo test`. --full uses a release build, 10^6 echoes,
# half a minute at the limit of descriptors, and 10^7 reuses. It takes a quarter of an hour on two
# CPUs.
#
# The tests assert time limits, which hold on an idle machine; NETPOLL_TIMED=0 disables these
# limits. NETPOLL_SEED=n repeats a failed run of `chaos`. Without --full, NETPOLL_ECHOES,
# NETPOLL_PRESSURE_MS and NETPOLL_REUSES set the sizes. Exits with status 2 for an unknown row.
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null

full=
if [[ ${1:-} == --full ]]; then
    full=1
    shift
    export NETPOLL_ECHOES=1000000 NETPOLL_PRESSURE_MS=30000 NETPOLL_REUSES=10000000
fi
export NETPOLL_REUSES=${NETPOLL_REUSES:-100000}
# With 1, the tests assert time limits.
export NETPOLL_TIMED=${NETPOLL_TIMED-1}
(($#)) || set -- errno chaos pressure reuse close cancel exit
for row in "$@"; do
    only=()
    case $row in
    errno | chaos | pressure | reuse) tests=(--test "$row") ;;
    close) tests=(--test close_matrix) ;;
    cancel) tests=(--test cancel) ;;
    exit)
        tests=(--test example_servers) only=(sigterm_names_stragglers_at_the_time_limit)
        cargo build ${full:+--release} --example graceful
        ;;
    *)
        printf 'no row %s\n' "$row" >&2
        exit 2
        ;;
    esac
    printf '==> %s\n' "$row"
    cargo test ${full:+--release} "${tests[@]}" -- "${only[@]}" --nocapture
done
