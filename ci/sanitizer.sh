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
selection=("$@")
((${#selection[@]} > 0)) || selection=(--lib --tests --examples)
# What lives as long as the process (the poll cache, processors) is reachable, so no leak.
RUSTFLAGS="-Zsanitizer=$sanitizer ${RUSTFLAGS:-}" cargo +nightly test "${options[@]}" "${selection[@]}"
