#!/usr/bin/env bash
# The tests under a sanitizer. Thread and memory need the component rust-src, since std has to be instrumented too: that of the nightly
# toolchain, or else of the stable one, which then accepts unstable options (RUSTC_BOOTSTRAP). Without it, thread takes its lesser form on
# nightly, in which std's locks and channels give false reports; which form runs is printed.
#   ci/sanitizer.sh address|thread|memory [--lib, --test NAME, …]
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null
readonly sanitizer=${1:?address, thread or memory}
shift

# has_source TOOLCHAIN: whether it has the source of std.
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
        # std makes a Vec byte by byte otherwise, which takes minutes under thread.
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
# MSan learns of memory written by system calls only for those that go through libc.
[[ $sanitizer == memory ]] && flags+=' -Zsanitizer-memory-track-origins --cfg rustix_use_libc'
# tests/faults stands before the C library, and asks for the interceptors by name.
flags+=' -Clink-arg=-Wl,--export-dynamic-symbol=__interceptor_*'
export LSAN_OPTIONS="suppressions=$PWD/ci/leaks.txt:print_suppressions=0 ${LSAN_OPTIONS:-}"
# The runtime's threads live as long as the process. Delays at random make more interleavings. A test forks and starts the runtime in the child.
export TSAN_OPTIONS="report_thread_leaks=0 enable_adaptive_delay=1 die_after_fork=0 ${TSAN_OPTIONS:-}"
export RUSTFLAGS="$flags ${RUSTFLAGS:-}"
# Their symbols take seconds, which tests of panics do not have.
export RUST_BACKTRACE=0
# tests/common is more patient then.
export NETPOLL_SLOW=1
if (($# == 0)); then
    # tests/examples.rs runs them.
    cargo "+$toolchain" build "${options[@]}" --examples
    set -- --lib --tests
fi
cargo "+$toolchain" test "${options[@]}" "$@"
