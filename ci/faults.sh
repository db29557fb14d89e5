#!/usr/bin/env bash
# Runs the tests of faults, rows 3–7 of docs/RELIABILITY.md, and prints their figures. Without --full, the sizes are those of `cargo test`.
# `exit` is not a row there: it checks that a server exits at most 50 ms after its drain time.
#   ci/faults.sh [--full] [errno | chaos | pressure | reuse | close | cancel | exit]...      default: all
# --full uses a release build, 10^6 echoes, half a minute at the limit of descriptors and 10^7 reuses. It takes a quarter of an hour on two CPUs.
#   NETPOLL_SEED=n ci/faults.sh chaos      replays a failure
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
# The tests also assert how soon things happen, which needs an idle machine.
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
