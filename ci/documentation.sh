#!/usr/bin/env bash
# The documentation builds without warnings, as cargo doc makes it without dependencies; every link has a target, and the pages of sockets
# begin with constructors. Needs python3.
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null

RUSTDOCFLAGS="${RUSTDOCFLAGS-} -D warnings" cargo doc --no-deps --workspace
python3 ci/documentation.py "${CARGO_TARGET_DIR:-target}/doc" netpoll
