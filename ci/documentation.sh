#!/usr/bin/env bash
# Checks that the documentation of the workspace (`cargo doc` without dependencies) builds without
# warnings. Also checks netpoll's pages (ci/documentation.py): every link has a target, rustdoc has
# resolved every reference, and the pages of sockets begin with a constructor.
#
# usage: ci/documentation.sh             the workspace, in CARGO_TARGET_DIR (default: target)
#        ci/documentation.sh docsrs      netpoll as docs.rs builds it, in target/docsrs; also checks
#                                        rustdoc's marks of items that only some systems have
#
# Needs python3, and nightly for docsrs, where warnings are no errors. RUSTDOCFLAGS may contain
# further flags.
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
