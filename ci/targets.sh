#!/usr/bin/env bash
# Checks the crate for other machines: 32 bits, and another architecture of 64. The compiler and its standard library suffice, nothing is
# linked or run.
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null
readonly targets=(i686-unknown-linux-gnu aarch64-unknown-linux-gnu)

for target in "${targets[@]}"; do
    rustup target list --installed | grep -qx "$target" || timeout 300 rustup target add "$target"
    cargo clippy --target "$target" --target-dir target/targets -- -D warnings
    printf '%s: no complaint\n' "$target"
done
