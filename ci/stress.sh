#!/usr/bin/env bash
# Runs netpoll's test binaries repeatedly while one busy process per CPU runs, so that threads are
# preempted everywhere. Stops at the first binary that fails, with status 1.
#
# usage: ci/stress.sh [ROUNDS]      default: 20
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null
readonly rounds=${1:-20}

cargo test --no-run
mapfile -t binaries < <(cargo test --no-run --message-format json | grep '"profile":{[^}]*"test":true' |
    grep -o '"executable":"[^"]*"' | cut -d'"' -f4)
((${#binaries[@]} > 0))

hogs=()
stop() {
    ((${#hogs[@]} == 0)) || kill "${hogs[@]}"
}
trap stop EXIT
for ((cpu = 0; cpu < $(nproc); cpu++)); do
    (while :; do :; done) &
    hogs+=($!)
done

for ((round = 1; round <= rounds; round++)); do
    for binary in "${binaries[@]}"; do
        if ! output=$(timeout --kill-after=10 600 "$binary" --quiet 2>&1); then
            printf '%s\nround %d: %s failed\n' "$output" "$round" "$(basename "$binary")"
            exit 1
        fi
    done
    printf 'round %d of %d passed\n' "$round" "$rounds"
done
