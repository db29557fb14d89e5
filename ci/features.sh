#!/usr/bin/env bash
# Runs clippy on every combination of netpoll's features other than `sim`, on `sim` alone, and on
# all features together with all targets. Builds the documentation with all features. Runs clippy on
# some combinations of netpoll-hyper's features. Fails at the first warning.
#
# usage: ci/features.sh
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null

mapfile -t features < <(sed -n '/^\[features\]/,/^\[dependencies\]/s/^\([a-z][a-z0-9-]*\) = .*/\1/p' Cargo.toml | grep -vx -e default -e sim)

readonly sets=$((1 << ${#features[@]}))
for ((set = 0; set < sets; set++)); do
    chosen=()
    for at in "${!features[@]}"; do
        ((set >> at & 1)) && chosen+=("${features[at]}")
    done
    printf 'clippy: %s\n' "${chosen[*]-}"
    cargo clippy --quiet --no-default-features --features "${chosen[*]-}" -- -D warnings
done
# The only other feature that code of `sim` depends on is `signal`. So `sim` is checked only alone
# and with all other features.
cargo clippy --quiet --no-default-features --features sim -- -D warnings
cargo clippy --quiet --all-features --all-targets -- -D warnings
RUSTDOCFLAGS="-D warnings" cargo doc --quiet --no-deps --all-features
for features in "" tower client rustls "client tower" "rustls tower"; do
    cargo clippy --quiet -p netpoll-hyper --features "$features" -- -D warnings
done
printf '%d combinations of %d features\n' "$sets" "${#features[@]}"
