#!/usr/bin/env bash
# Runs the tests under a sanitizer.
#
# usage: ci/sanitizer.sh address|thread|memory [OPTION]...
#
# The OPTIONs are those of `cargo test`, such as --lib and --test NAME. By default, the script runs
# all unit and integration tests, except those that run rustc.
#
# For `thread` and `memory`, std should be instrumented too, which needs the component rust-src. If
# only the stable toolchain has rust-src, the script uses stable, with unstable options enabled
# (RUSTC_BOOTSTRAP). Otherwise it uses nightly. If neither has rust-src, `memory` fails, and
# `thread` runs without instrumented std, whose locks and channels then cause false reports. For
# both, the script prints whether std is instrumented.
#
# RUSTFLAGS, LSAN_OPTIONS and TSAN_OPTIONS are added to the script's own. Builds in target/address,
# target/thread or target/memory. Exits with status 2 for an unknown sanitizer, and for `memory`
# without rust-src.
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
# MSan learns which memory a system call has written only if the call goes through libc.
[[ $sanitizer == memory ]] && flags+=' -Zsanitizer-memory-track-origins --cfg rustix_use_libc'
# Tests replace functions of the C library. Their replacements look up the sanitizer's interceptors
# by name.
flags+=' -Clink-arg=-Wl,--export-dynamic-symbol=__interceptor_*'
export LSAN_OPTIONS="suppressions=$PWD/ci/leaks.txt:print_suppressions=0 ${LSAN_OPTIONS:-}"
# The runtime's threads live as long as the process, so TSan must not report them as leaks. Random
# delays create more interleavings (enable_adaptive_delay). One test forks and starts the runtime in
# the child (die_after_fork).
export TSAN_OPTIONS="report_thread_leaks=0 enable_adaptive_delay=1 die_after_fork=0 ${TSAN_OPTIONS:-}"
export RUSTFLAGS="$flags ${RUSTFLAGS:-}"
# Resolving the symbols of a backtrace takes seconds, which exceeds time limits in tests of panics.
export RUST_BACKTRACE=0
# At compile time, gives the tests longer time limits, and removes the limits of memory use
# (tests/common).
export NETPOLL_SLOW=1
if (($# == 0)); then
    # tests/examples.rs and tests/example_servers.rs run the examples.
    cargo "+$toolchain" build "${options[@]}" --examples
    # The skipped tests run rustc on programs that use the library. These programs are not
    # instrumented, and the library is.
    set -- --no-fail-fast --lib --tests -- --skip absent_items --skip present_items --skip arguments_of_wrong_types
fi
cargo "+$toolchain" test "${options[@]}" "$@"
