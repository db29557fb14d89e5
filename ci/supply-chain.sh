#!/usr/bin/env bash
# Checks licences, sources, bans and advisories of netpoll's dependencies on Linux, except those of
# tests (deny.toml), with cargo-deny (cargo install cargo-deny). If the advisory database cannot be
# fetched, the script checks the other three, says so, and exits with status 0.
#
# usage: ci/supply-chain.sh
#
# ADVISORY_DB=DIR names a clone of RustSec's advisory-db, which may be up to ten years old. The
# script then uses this clone and prints the date of its last commit. It also checks the advisories
# for the dependencies of the whole workspace, those of tests included.
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null

cargo deny --all-features check licenses sources bans
if [[ -n ${ADVISORY_DB:-} ]]; then
    # cargo-deny looks for a clone under this name, which contains a hash of the database's address.
    dbs=$PWD/target/advisory-dbs
    clone=$dbs/advisory-db-3157b0e258782691
    rm -rf "$dbs"
    mkdir -p "$dbs"
    git clone -q "$ADVISORY_DB" "$clone"
    touch "$clone/.git/FETCH_HEAD"
    sed "s#^\[advisories\]#&\ndb-path = \"$dbs\"\nmaximum-db-staleness = \"P10Y\"#" deny.toml >"$dbs/deny.toml"
    cargo deny --offline --all-features --config "$dbs/deny.toml" check advisories
    # Checks the dependencies of the whole workspace, those of tests included. trillium, which only
    # an example of netpoll-ecosystem uses, depends on smartstring, which is no longer maintained.
    sed -i 's/^exclude-dev = true/exclude-dev = false/; s/^\[advisories\]/&\nignore = ["RUSTSEC-2026-0249"]/' "$dbs/deny.toml"
    cargo deny --offline --workspace --all-features --config "$dbs/deny.toml" check advisories
    printf 'all four checked; %d advisories, the last of %s\n' "$(find "$clone/crates" -name 'RUSTSEC-*.md' | wc -l)" \
        "$(git -C "$clone" log -1 --format=%cs)"
    exit
fi
if output=$(timeout 120 cargo deny --all-features check advisories 2>&1); then
    printf '%s\nall four checked\n' "$output"
elif grep -q 'failed to fetch advisory database' <<<"$output"; then
    printf 'the advisory database cannot be fetched: advisories were NOT checked, the other three were\n'
else
    printf '%s\n' "$output" >&2
    exit 1
fi
