#!/usr/bin/env bash
# Builds the crate with the oldest versions of its direct dependencies that Cargo.toml permits: with the default features, with each
# optional dependency alone, and with all. It uses a copy of the tree, so that the lock file does not change.
#   ci/minimal-versions.sh [--features NAME, …]     only these
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null
readonly root=$PWD

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
git ls-files --cached --others --exclude-standard | tar -c -T - | tar -x -C "$scratch"
cd "$scratch"
# Dependencies of tests and models are not part of this promise and have separate minimum versions.
sed -i '/^\[dev-dependencies\]/,/^\[/{/^\[workspace\]/!{/^\[dev-dep/!{/^\[/!d}}}' Cargo.toml
sed -i 's/^members = .*/members = ["macros"]/; s/^exclude = \["benches".*/exclude = ["benches", "ecosystem", "models"]/' Cargo.toml
# The flag belongs to cargo, not to the compiler: stable accepts it with the variable.
RUSTC_BOOTSTRAP=1 cargo update --quiet -Zdirect-minimal-versions

# check NAME OPTION…
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
