#!/usr/bin/env bash
# Builds the crate with the oldest versions of its direct dependencies that Cargo.toml permits. In a copy of the tree: the lock file stays.
#   ci/minimal-versions.sh [--all-features, …]
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null
readonly root=$PWD

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
git ls-files --cached --others --exclude-standard | tar -c -T - | tar -x -C "$scratch"
cd "$scratch"
# What tests and models use is not promised, and has floors of its own.
sed -i '/^\[dev-dependencies\]/,/^\[/{/^\[workspace\]/!{/^\[dev-dep/!{/^\[/!d}}}' Cargo.toml
sed -i 's/^members = .*/members = ["macros"]/; s/^exclude = \["benches".*/exclude = ["benches", "ecosystem", "fuzz", "models"]/' Cargo.toml
# The flag is cargo's own, not the compiler's: stable has it behind the variable.
RUSTC_BOOTSTRAP=1 cargo update --quiet -Zdirect-minimal-versions
cargo tree --package netpoll --edges normal --depth 1 "$@"
cargo check --package netpoll --target-dir "$root/target/minimal" "$@"
