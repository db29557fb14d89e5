#!/usr/bin/env bash
# A runner for `cargo test` that runs each test in a separate process, for tests that change
# settings that a process can change only once.
#
# usage: one_by_one.sh PROGRAM [ARGUMENT]...
#
# PROGRAM is a test binary. The ARGUMENTs, which cargo passes, select the tests. The exit status is
# that of the last test that failed, or 0.
set -euo pipefail
readonly program=$1
shift
status=0
while read -r name; do
    "$program" --exact "$name" || status=$?
done < <("$program" --list --format terse "$@" | sed -n 's/: test$//p')
exit "$status"
