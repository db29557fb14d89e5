#!/usr/bin/env bash
# Fuzzes each target of fuzz/ with libFuzzer and AddressSanitizer. Needs nightly and cargo-fuzz (cargo install cargo-fuzz).
#   ci/fuzz.sh [SECONDS [TARGET…]]      60 seconds each, all targets
# NETPOLL_FUZZ_TIMEOUT limits the seconds per input (default 60). Increase it if the run is sometimes stopped (SIGSTOP).
# A failing input is left in fuzz/artifacts: move it to fuzz/seeds/TARGET, where `cargo test -p netpoll-fuzz` replays it. New inputs are in
# fuzz/corpus, which is not kept in the tree.
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null
readonly seconds=${1:-60}
shift || true
targets=("$@")
((${#targets[@]})) || mapfile -t targets < <(cd fuzz/seeds && ls)

export LSAN_OPTIONS="suppressions=$PWD/ci/leaks.txt:print_suppressions=0"
for target in "${targets[@]}"; do
    mkdir -p "fuzz/corpus/$target"
    cargo +nightly fuzz run --features libfuzzer "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
        -max_total_time="$seconds" -max_len=1024 -timeout="${NETPOLL_FUZZ_TIMEOUT:-60}" -print_final_stats=1 2>&1 |
        tee "fuzz/$target.log" | grep -E 'Compiling netpoll|ERROR|SUMMARY|panicked|stat::number_of_executed|^Done|error' || true
    tail -n 30 "fuzz/$target.log" | grep -q '^Done ' || {
        tail -n 60 "fuzz/$target.log"
        exit 1
    }
    printf '%s: clean for %s s\n' "$target" "$seconds"
done
