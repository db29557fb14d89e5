#!/usr/bin/env bash
# Checks that the documentation of the workspace (cargo doc without dependencies) builds without warnings, that every link in netpoll's pages
# has a target, and that the pages of sockets begin with constructors. Needs python3.
#   ci/documentation.sh docsrs    as docs.rs builds netpoll (nightly); also checks rustdoc's marks of items that only some systems have
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null

if [[ ${1-} == docsrs ]]; then
    RUSTDOCFLAGS="${RUSTDOCFLAGS-} --cfg docsrs" cargo +nightly doc --no-deps --all-features --lib --target-dir target/docsrs
    python3 ci/documentation.py target/docsrs/doc netpoll marks
    exit
fi
RUSTDOCFLAGS="${RUSTDOCFLAGS-} -D warnings" cargo doc --no-deps --workspace
python3 ci/documentation.py "${CARGO_TARGET_DIR:-target}/doc" netpoll
