#!/usr/bin/env bash
# Runs the unit tests and the integration tests on the back end poll(2), on Linux. With `quick`,
# runs only the unit tests and the tests of edges, deadlines, close and cancellation.
#
# usage: ci/backends.sh [quick|full]      default: full
#
# Tests of epoll's own system calls select epoll themselves. Tests of properties that only epoll has
# are left out. The script prints each of these with its reason.
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null
export NETPOLL_BACKEND=poll

# The entries have the form TEST:REASON.
readonly exceptions=(
    "device_unsupported_by_epoll_is_rejected:poll(2) reports a device without a poll operation as ready, and epoll refuses it"
    "call_that_needs_more_bytes_does_not_spin:poll(2) repeatedly reports bytes that the call has left unread"
    "spurious_wake_up_does_not_end_a_dial:counts the calls of a dial whose socket was never connected, and poll(2) repeatedly reports the hang-up of this socket"
)

skips=()
for exception in "${exceptions[@]}"; do
    printf 'left out: %s\n' "$exception"
    skips+=(--skip "${exception%%:*}")
done

if [[ ${1-} == quick ]]; then
    cargo test --lib --test edges --test deadline --test close --test cancel -- "${skips[@]}"
else
    # Some tests run the examples.
    cargo build --examples
    cargo test --no-fail-fast --lib --tests -- "${skips[@]}"
fi
