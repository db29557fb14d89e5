#!/usr/bin/env bash
# Builds the crate and its examples with the Rust version that Cargo.toml declares. (The crates of ecosystem/ have their own.)
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null

version=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
rustup toolchain list | grep -q "^$version" || rustup toolchain install --profile minimal "$version"
cargo "+$version" check --workspace --exclude netpoll-ecosystem --exclude netpoll-tokio-bound --examples --target-dir "target/msrv"
