#!/usr/bin/env bash
# The packages that `cargo publish` uploads pass their own tests: each is packed, unpacked outside the workspace and tested there.
#   ci/package.sh [ARGUMENT OF cargo test]...      such as --lib
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null
readonly target=${CARGO_TARGET_DIR:-$PWD/target}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

cargo package --quiet --allow-dirty --no-verify -p netpoll-macros -p netpoll -p netpoll-nettest
for package in netpoll-macros netpoll netpoll-nettest; do
    version=$(cargo pkgid -p "$package" | sed 's/.*[#@]//')
    tar -C "$scratch" -xf "$target/package/$package-$version.crate"
    mv "$scratch/$package-$version" "$scratch/$package"
done
for package in netpoll-macros netpoll netpoll-nettest; do
    printf '==> %s\n' "$package"
    # What it depends on is not in the registry yet.
    patch=()
    [[ $package == netpoll-macros ]] || patch+=(--config "patch.crates-io.netpoll-macros.path='$scratch/netpoll-macros'")
    [[ $package != netpoll-nettest ]] || patch+=(--config "patch.crates-io.netpoll.path='$scratch/netpoll'")
    (cd "$scratch/$package" && cargo test "${patch[@]}" --target-dir "$target/packaged" "$@")
done
