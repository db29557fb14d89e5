#!/usr/bin/env bash
# Runs tests that shut down the runtime under valgrind's memcheck. Fails if an access is outside the
# blocks of the heap or to a freed block, if a branch, an address or a system call depends on
# unwritten memory, or if memory is lost after `rt::shutdown`. Needs valgrind.
#
# usage: ci/memcheck.sh [TEST]...      tests of tests/shutdown.rs; default: the five below
#
# The poll cache's blocks stay reachable by design (invariant C1 of src/rt/slab.rs). Memory that is
# "possibly lost" is no error: std's handle of the main thread, to which a thread-local points, and
# a static hash map. The reports are in target/memcheck-TEST.txt.
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null
(($#)) || set -- fifty_restarts_leak_no_descriptors_or_threads sockets_survive_shutdown join_handles_report_that_their_tasks_were_dropped \
    waiting_tasks_live_until_the_shutdown_drops_them runtime_with_thousand_tasks_shuts_down

binary=$(cargo test --no-run --message-format json --test shutdown 2>/dev/null | grep '"profile":{[^}]*"test":true' |
    grep -o '"executable":"[^"]*"' | cut -d'"' -f4)
mkdir -p target
for test in "$@"; do
    log=target/memcheck-$test.txt
    # The variable makes this process the child process in which the body of the test runs.
    NETPOLL_TEST_CHILD=$test timeout 300 valgrind --log-file="$log" --leak-check=full --fair-sched=yes \
        --errors-for-leak-kinds=definite,indirect --error-exitcode=9 \
        "$binary" --exact "$test" --nocapture --test-threads=1 >"$log.out" 2>&1 || {
        cat "$log.out" "$log" >&2
        exit 1
    }
    grep -q '^test result: ok\. 1 passed' "$log.out" || {
        printf 'no test has the name %s\n' "$test" >&2
        exit 1
    }
    printf '%s\n' "$test"
    grep -E 'definitely|indirectly|possibly|still reachable|ERROR SUMMARY|no leaks|All heap' "$log" | sed 's/^==[0-9]*==//'
done
