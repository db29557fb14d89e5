#!/usr/bin/env bash
# Checks that the workspace and its examples compile with the Rust version that Cargo.toml declares.
# Installs this version with rustup if it is missing. netpoll-ecosystem and netpoll-tokio-bound are
# left out, because their dependencies need newer versions. Builds in target/msrv.
#
# usage: ci/msrv.sh
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null

version=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
rustup toolchain list | grep -q "^$version" || rustup toolchain install --profile minimal "$version"
cargo "+$version" check --workspace --exclude netpoll-ecosystem --exclude netpoll-tokio-bound --lib --bins --examples --target-dir "target/msrv"
