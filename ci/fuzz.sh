#!/usr/bin/env bash
# Fuzzes targets of fuzz/ with libFuzzer and AddressSanitizer. Needs nightly and cargo-fuzz (cargo
# install cargo-fuzz).
#
# usage: ci/fuzz.sh [SECONDS [TARGET]...]      default: 60 s per target, all targets
#
# NETPOLL_FUZZ_TIMEOUT is the time limit per input in seconds (default: 60). Increase it if the run
# is sometimes stopped (SIGSTOP). The script stops at the first target that fails, with status 1.
# The failing input is in fuzz/artifacts. Move it to fuzz/seeds/TARGET, so that the tests of
# netpoll-fuzz replay it. New inputs are in fuzz/corpus, and the output is in fuzz/TARGET.log. Git
# ignores these artifacts, inputs and logs.
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
