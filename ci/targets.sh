#!/usr/bin/env bash
# Checks the library, its tests and its examples, with default features, for other machines and systems: Linux on i686 and aarch64, macOS, and
# FreeBSD. This needs only the compiler and the standard library of the target, because nothing is linked or run.
#
# usage: ci/targets.sh [--strict] [TARGET]...
# The standard library comes from rustup. If rustup has none for the target, Debian's compiler and sources are used (rustc-web, rust-web-src,
# libstd-rust-web-*, libllvm*), unpacked into target/targets without installing anything. A target for which neither is available is named
# and skipped. With --strict, the script then fails.
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

# Puts Debian's compiler with its sources into $folder/debian; fails if there are none.
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
        # The compiler has no clippy; its warnings are errors.
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
