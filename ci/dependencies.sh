#!/usr/bin/env bash
# Prints the crates of the default build, and fails if there are more than eleven, netpoll included.
# Also fails if `cargo test` builds one of the large crates that only other packages of the
# workspace need.
#
# usage: ci/dependencies.sh
set -euo pipefail
cd "$(dirname "$0")/.."
readonly most=11

crates=$(cargo tree --package netpoll --edges normal,build --prefix none --format '{p}' | cut -d' ' -f1,2 | sort -u)
count=$(wc -l <<<"$crates")
printf '%s\n%d crates, at most %d\n' "$crates" "$count" "$most"
((count <= most))

heavy=$(cargo tree --package netpoll --edges all --prefix none --format '{p}' |
    grep -oE '^(async-tungstenite|axum|h2|hyper|quinn|rcgen|ring|rustls|smol|tokio|tonic|trillium) ' | sort -u | tr -d '\n' || true)
[[ -z $heavy ]] || {
    printf '`cargo test` builds %s\n' "$heavy"
    exit 1
}
