#!/usr/bin/env bash
# The tests under a sanitizer. Needs a nightly toolchain; for thread also its component rust-src, since std has to be instrumented too.
#   ci/sanitizer.sh address|thread [--lib, --test NAME, …]
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null
readonly sanitizer=${1:?address or thread}
shift

host=$(rustc -vV | sed -n 's/^host: //p')
options=(--target "$host" --target-dir "target/$sanitizer")
case $sanitizer in
address) ;;
thread) options+=(-Zbuild-std) ;;
*)
    printf 'no sanitizer %s\n' "$sanitizer" >&2
    exit 2
    ;;
esac
export LSAN_OPTIONS="suppressions=$PWD/ci/leaks.txt:print_suppressions=0 ${LSAN_OPTIONS:-}"
# The runtime's threads live as long as the process.
export TSAN_OPTIONS="report_thread_leaks=0 ${TSAN_OPTIONS:-}"
export RUSTFLAGS="-Zsanitizer=$sanitizer ${RUSTFLAGS:-}"
if (($# == 0)); then
    # tests/examples.rs runs them.
    cargo +nightly build "${options[@]}" --examples
    set -- --lib --tests
fi
cargo +nightly test "${options[@]}" "$@"
