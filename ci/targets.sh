#!/usr/bin/env bash
# Checks the library, its tests and its examples, with default features, for other targets. This
# needs only the compiler and the standard library of a target, because nothing is linked or run.
#
# usage: ci/targets.sh [--strict] [TARGET]...
#
# The default TARGETs are i686 and aarch64 Linux, x86_64 and aarch64 macOS, and x86_64 FreeBSD.
#
# The standard library comes from rustup, and the check is clippy. If rustup has no standard library
# for a target, the script uses Debian's compiler and sources (rustc-web, rust-web-src,
# libstd-rust-web-*, libllvm*) without clippy. It downloads them with apt-get and unpacks them into
# target/targets; nothing is installed. The script names and skips a target for which neither is
# available. With --strict, it then exits with status 1.
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null
strict=
if [[ ${1-} == --strict ]]; then
    strict=1
    shift
fi
targets=("$@")
if ((${#targets[@]} == 0)); then
    targets=(i686-unknown-linux-gnu aarch64-unknown-linux-gnu x86_64-apple-darwin aarch64-apple-darwin x86_64-unknown-freebsd)
fi
readonly folder=$PWD/target/targets

# debian: unpacks Debian's compiler and its sources into $folder/debian, unless they are there.
# Fails if they are not available.
debian() {
    [[ -x $folder/debian/usr/bin/rustc ]] && return
    command -v apt-get >/dev/null && command -v dpkg >/dev/null || return 1
    local packages=(rustc-web rust-web-src) extra
    extra=$(apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances rustc-web 2>/dev/null |
        grep -E '^(libstd-rust-web|libllvm)' | sort -u) || return 1
    mkdir -p "$folder/debs" "$folder/debian"
    # shellcheck disable=SC2086
    (cd "$folder/debs" && timeout 600 apt-get download "${packages[@]}" $extra >/dev/null 2>&1) || return 1
    local package
    for package in "$folder"/debs/*.deb; do
        dpkg -x "$package" "$folder/debian"
    done
    [[ -x $folder/debian/usr/bin/rustc ]]
}

failed=()
for target in "${targets[@]}"; do
    begin=$SECONDS
    if rustup target list --installed | grep -qx "$target" || timeout 300 rustup target add "$target" >/dev/null 2>&1; then
        cargo clippy --lib --tests --examples --target "$target" --target-dir "$folder" -- -D warnings
        printf '%s: no complaint (%d s)\n' "$target" $((SECONDS - begin))
    elif debian; then
        # Debian's compiler has no clippy.
        RUSTC=$folder/debian/usr/bin/rustc RUSTC_BOOTSTRAP=1 RUSTFLAGS='-D warnings' \
            LD_LIBRARY_PATH=$(find "$folder/debian" -name 'libLLVM*.so*' -printf '%h\n' | sort -u | paste -sd:) \
            cargo check --lib --tests --examples -Zbuild-std=std,panic_abort --target "$target" --target-dir "$folder/build-std"
        printf '%s: no complaint of the compiler (clippy was not run, %d s)\n' "$target" $((SECONDS - begin))
    else
        printf '%s: left out, there is no standard library for it\n' "$target"
        failed+=("$target")
    fi
done
if ((${#failed[@]} > 0)) && [[ $strict ]]; then
    exit 1
fi
