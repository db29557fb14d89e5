#!/usr/bin/env bash
# Builds the crate with the oldest versions of its direct dependencies that Cargo.toml permits: with
# the default features, with each optional dependency alone, and with all features. Works on a copy
# of the tree, so the lock file does not change. Builds in target/minimal.
#
# usage: ci/minimal-versions.sh [OPTION]...      builds once, with these options of `cargo check`,
#                                                such as --features NAME
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null
readonly root=$PWD

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
git ls-files --cached --others --exclude-standard | tar -c -T - | tar -x -C "$scratch"
cd "$scratch"
# Dependencies of tests and models have other minimum versions, which this check does not cover.
sed -i '/^\[dev-dependencies\]/,/^\[/{/^\[workspace\]/!{/^\[dev-dep/!{/^\[/!d}}}' Cargo.toml
sed -i 's/^members = .*/members = ["macros"]/; s/^exclude = \["benches".*/exclude = ["benches", "ecosystem", "models"]/' Cargo.toml
# The option is unstable. cargo of stable accepts it with RUSTC_BOOTSTRAP.
RUSTC_BOOTSTRAP=1 cargo update --quiet -Zdirect-minimal-versions

# check NAME OPTION...: prints NAME, and runs `cargo check` with the options.
check() {
    printf '==> %s\n' "$1"
    cargo check --quiet --package netpoll --target-dir "$root/target/minimal" "${@:2}"
}
if (($#)); then
    check "$*" "$@"
    exit
fi
cargo tree --package netpoll --edges normal --depth 1 --all-features
check 'default features'
mapfile -t features < <(sed -n '/^\[features\]/,/^\[/s/^\([a-z0-9-]*\) = \[.*"dep:.*/\1/p' Cargo.toml)
for feature in "${features[@]}"; do
    check "$feature alone" --no-default-features --features "$feature"
done
check 'all features' --all-features
