#!/usr/bin/env bash
# The default build has at most eleven crates, this one included. Prints them.
set -euo pipefail
cd "$(dirname "$0")/.."
readonly most=11

crates=$(cargo tree --package netpoll --edges normal,build --prefix none --format '{p}' | cut -d' ' -f1,2 | sort -u)
count=$(wc -l <<<"$crates")
printf '%s\n%d crates, at most %d\n' "$crates" "$count" "$most"
((count <= most))
