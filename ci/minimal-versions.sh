#!/usr/bin/env bash
# Builds the crate with the oldest versions of its direct dependencies that Cargo.toml permits. Needs nightly for cargo's resolver only;
# the lock file is put back afterwards.
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null

# A copy, so that nothing of the tree changes; the packages with their own lock files stay behind.
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
git ls-files --cached --others --exclude-standard | tar -c -T - | tar -x -C "$scratch"
cd "$scratch"
rm -f Cargo.lock
cargo +nightly update --quiet -Zdirect-minimal-versions
cargo tree --package netpoll --edges normal --depth 1 --all-features
CARGO_TARGET_DIR="$OLDPWD/target/minimal" cargo check --package netpoll --all-features
