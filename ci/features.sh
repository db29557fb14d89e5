#!/usr/bin/env bash
# Each feature alone, none, and all together are clean for clippy, the last with tests, examples and documentation.
# With --tests the tests that need features run as well.
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null

mapfile -t features < <(sed -n '/^\[features\]/,/^\[dependencies\]/s/^\([a-z][a-z0-9-]*\) = .*/\1/p' Cargo.toml | grep -vx default)

lint() {
    printf 'clippy %s\n' "$*"
    cargo clippy --quiet "$@" -- -D warnings
}

lint --no-default-features
for feature in "${features[@]}"; do
    lint --no-default-features --features "$feature"
done
lint --all-features --all-targets
RUSTDOCFLAGS="-D warnings" cargo doc --quiet --no-deps --all-features
if [[ ${1:-} == --tests ]]; then
    cargo build --quiet --all-features --examples
    cargo test --all-features --test hyper --test tokio_io --test tls --test websocket --test examples
    cargo test --all-features --doc hyper
fi
printf '%d features\n' "${#features[@]}"
