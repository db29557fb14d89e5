#!/usr/bin/env bash
# Runs the tests under a sanitizer. For `thread` and `memory`, std should be instrumented too, which needs the component rust-src. If only the
# stable toolchain has it, that toolchain is used, with unstable options enabled (RUSTC_BOOTSTRAP). If neither has it, `memory` fails, and
# `thread` runs on nightly without instrumented std, whose locks and channels then cause false reports. The script prints whether std is
# instrumented.
#   ci/sanitizer.sh address|thread|memory [--lib, --test NAME, …]
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null
readonly sanitizer=${1:?address, thread or memory}
shift

# has_source TOOLCHAIN: succeeds if the toolchain has the source of std.
has_source() {
    [[ -f $(rustc "+$1" --print sysroot 2>/dev/null)/lib/rustlib/src/rust/library/Cargo.lock ]]
}
toolchain=nightly
if ! has_source nightly && has_source stable; then
    toolchain=stable
    export RUSTC_BOOTSTRAP=1
fi
host=$(rustc -vV | sed -n 's/^host: //p')
options=(--target "$host" --target-dir "target/$sanitizer")
flags=-Zsanitizer=$sanitizer
case $sanitizer in
address) ;;
thread | memory)
    if has_source "$toolchain"; then
        options+=(-Zbuild-std)
        # Without optimisation, std builds a Vec byte by byte, which takes minutes under TSan.
        export CARGO_PROFILE_DEV_OPT_LEVEL=1
        printf 'std is instrumented (%s)\n' "$toolchain"
    elif [[ $sanitizer == thread ]]; then
        flags+=' -Cunsafe-allow-abi-mismatch=sanitizer'
        printf 'std is NOT instrumented (no rust-src): reports about its locks and channels are false\n'
    else
        printf 'memory needs rust-src\n' >&2
        exit 2
    fi
    ;;
*)
    printf 'no sanitizer %s\n' "$sanitizer" >&2
    exit 2
    ;;
esac
# MSan sees memory that system calls write only if they go through libc.
[[ $sanitizer == memory ]] && flags+=' -Zsanitizer-memory-track-origins --cfg rustix_use_libc'
# Functions of tests that replace those of the C library look up the sanitizer's interceptors by name.
flags+=' -Clink-arg=-Wl,--export-dynamic-symbol=__interceptor_*'
export LSAN_OPTIONS="suppressions=$PWD/ci/leaks.txt:print_suppressions=0 ${LSAN_OPTIONS:-}"
# The runtime's threads live as long as the process, so they are no leaks. Random delays create more interleavings. One test forks and
# starts the runtime in the child.
export TSAN_OPTIONS="report_thread_leaks=0 enable_adaptive_delay=1 die_after_fork=0 ${TSAN_OPTIONS:-}"
export RUSTFLAGS="$flags ${RUSTFLAGS:-}"
# Resolving the symbols of a backtrace takes seconds, longer than tests of panics wait.
export RUST_BACKTRACE=0
# Gives the tests longer time limits, and the tests of memory use no limits (tests/common).
export NETPOLL_SLOW=1
if (($# == 0)); then
    # tests/examples.rs runs the examples.
    cargo "+$toolchain" build "${options[@]}" --examples
    # rustc must not run on the library of a sanitizer.
    set -- --no-fail-fast --lib --tests -- --skip absent_items --skip present_items --skip arguments_of_wrong_types
fi
cargo "+$toolchain" test "${options[@]}" "$@"
