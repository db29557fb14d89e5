#!/usr/bin/env bash
# Compares the public API with docs/public-api.txt: every public item with its signature, every type
# with its auto traits. Fails if they differ. A difference needs a decision: a new item needs an
# update of the file with --write, and a changed or removed line is a breaking change (semver).
#
# usage: ci/public-api.sh [--write]
#
# The items come from rustdoc's JSON, which stable prints with RUSTC_BOOTSTRAP. cargo-public-api is
# not used, because each of its releases needs a nightly toolchain of the same date. Needs python3.
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null
readonly file=docs/public-api.txt

RUSTC_BOOTSTRAP=1 cargo rustdoc --quiet --lib --all-features --target-dir target/public-api -- -Zunstable-options --output-format json --cap-lints allow
python3 ci/public-api.py target/public-api/doc/netpoll.json >target/public-api/now.txt
if [[ ${1-} == --write ]]; then
    cp target/public-api/now.txt "$file"
elif ! diff -u "$file" target/public-api/now.txt; then
    echo "the public API has changed: if this is intended, run ci/public-api.sh --write" >&2
    exit 1
fi
printf '%d lines of public API\n' "$(wc -l <"$file")"
