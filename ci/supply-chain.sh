#!/usr/bin/env bash
# Checks licences, sources, bans and advisories of netpoll's dependencies on Linux, except those of tests (deny.toml), with cargo-deny
# (cargo install cargo-deny). If the advisory database cannot be fetched, it checks the other three and says so.
#   ci/supply-chain.sh
#   ADVISORY_DB=DIR ci/supply-chain.sh      with a clone of RustSec's advisory-db of any age, whose date is printed; also checks
#                                           the advisories of the dependencies of tests and models
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null

cargo deny --all-features check licenses sources bans
if [[ -n ${ADVISORY_DB:-} ]]; then
    # cargo-deny looks for a clone under this name, which is a hash of the database's address.
    dbs=$PWD/target/advisory-dbs
    clone=$dbs/advisory-db-3157b0e258782691
    rm -rf "$dbs"
    mkdir -p "$dbs"
    git clone -q "$ADVISORY_DB" "$clone"
    touch "$clone/.git/FETCH_HEAD"
    sed "s#^\[advisories\]#&\ndb-path = \"$dbs\"\nmaximum-db-staleness = \"P10Y\"#" deny.toml >"$dbs/deny.toml"
    cargo deny --offline --all-features --config "$dbs/deny.toml" check advisories
    # Also checks the dependencies of tests and models. trillium, which only the tests of the package `ecosystem` use, depends on smartstring,
    # which is no longer maintained.
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
