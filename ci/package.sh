#!/usr/bin/env bash
# The packages that `cargo publish` uploads pass their own tests: each is packed, unpacked outside the workspace and tested there.
#   ci/package.sh [ARGUMENT OF cargo test]...      such as --lib
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null
readonly target=${CARGO_TARGET_DIR:-$PWD/target}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

readonly packages=(netpoll-macros netpoll netpoll-hyper netpoll-nettest netpoll-quinn netpoll-resolver)
cargo package --quiet --allow-dirty --no-verify "${packages[@]/#/-p}"
for package in "${packages[@]}"; do
    version=$(cargo pkgid -p "$package" | sed 's/.*[#@]//')
    tar -C "$scratch" -xf "$target/package/$package-$version.crate"
    mv "$scratch/$package-$version" "$scratch/$package"
done
patch=()
for package in "${packages[@]}"; do
    printf '==> %s\n' "$package"
    (cd "$scratch/$package" && cargo test "${patch[@]}" --target-dir "$target/packaged" "$@")
    # It is not in the registry yet, and the next ones need it.
    patch+=(--config "patch.crates-io.$package.path='$scratch/$package'")
done
