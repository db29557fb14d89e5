#!/usr/bin/env bash
# Checks that the packages can be published: `cargo publish --dry-run` prints no warning, and each
# package passes its own tests outside the workspace. Builds in CARGO_TARGET_DIR (default: target).
#
# usage: ci/package.sh [ARGUMENT]...     arguments of `cargo test`, such as --no-fail-fast
#        ci/package.sh dry-run           only the dry run, which takes seconds
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null
readonly target=${CARGO_TARGET_DIR:-$PWD/target}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

readonly packages=(netpoll-macros netpoll netpoll-hyper netpoll-nettest netpoll-quinn netpoll-resolver netpoll-top)
# --no-verify: the tests below compile the packages.
cargo publish --dry-run --allow-dirty --no-verify "${packages[@]/#/-p}" 2>&1 | tee "$scratch/publish"
if grep '^warning' "$scratch/publish" | grep -v 'aborting upload due to dry run'; then
    printf 'cargo publish warns\n'
    exit 1
fi
printf '%d packages can be published\n' "${#packages[@]}"
[[ ${1-} != dry-run ]] || exit 0
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
    # The next packages may depend on this one, whose version is not in the registry yet.
    patch+=(--config "patch.crates-io.$package.path='$scratch/$package'")
done
