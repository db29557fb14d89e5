#!/usr/bin/env bash
# Runs rows 8 to 13 of docs/RELIABILITY.md at full size, in a release build. Asserts time limits.
#
# usage: ci/hostile.sh [8|9|10|11|12|13]...      default: all rows
#
# Needs an idle machine for rows 8 and 10, root and ip(8) for rows 9 and 10 (network namespaces, TUN
# devices), root for row 11 (a memory control group, version 1), and 20,000 descriptors. A test
# without its prerequisites is skipped or checks less, and passes.
#
# With QUICK=1, the sizes are those of `cargo test`, and no time limits are asserted. NETPOLL_SOAK=n
# runs row 13 for n seconds (default: 7200, and 6 with QUICK=1). NETPOLL_SEED=n selects another
# random run (default: 1).
#
# Prints each test that fails or is skipped, and runs the others. Exits with status 1 if a test has
# failed, and with status 2 for an unknown row.
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null
(($# > 0)) || set -- 8 9 10 11 12 13
declare -A tests=(
    [8]="deadlines::many_timers_are_never_early deadlines::single_timers_are_never_early
         deadlines::deadlines_match_oracle"
    [9]="weather::data_is_intact_under_network_faults peers::resets_are_reported_as_resets"
    [10]="peers::silent_clients_do_not_delay_others peers::clients_that_never_read_are_disconnected
          weather::deadlines_end_operations_behind_cut_network peers::connection_bursts_leak_nothing
          peers::greedy_connection_does_not_starve_others"
    [11]="overload::server_memory_stays_below_limit overload::million_tasks_complete
          overload::panics_stay_contained"
    [12]="ending::shutdowns_leak_nothing ending::child_programs_inherit_nothing"
    [13]="soak::soak_grows_nothing"
)
for row; do
    [[ -n ${tests[$row]:-} ]] || { echo "no row $row" >&2; exit 2; }
done
# Half of the tests hold thousands of connections in one process.
ulimit -n "$(ulimit -Hn)"
[[ ${QUICK:-0} == 1 ]] || export NETPOLL_FULL=1

cargo test --release --test hostile --no-run
binary=$(cargo test --release --test hostile --no-run --message-format json 2>/dev/null |
    grep -o '"executable":"[^"]*/hostile-[^"]*"' | cut -d'"' -f4)
failed=0
output=$(mktemp)
trap 'rm -f "$output"' EXIT
for row; do
    for test in ${tests[$row]}; do
        # Each test has a time limit. This longer one is for the test harness.
        timeout --kill-after=10 $((${NETPOLL_SOAK:-7200} + 1800)) \
            "$binary" --exact "$test" --nocapture --test-threads=1 2>&1 >"$output" || {
            echo "row $row: $test failed"
            failed=1
            continue
        }
        grep -q '^test result: ok\. 1 passed' "$output" || {
            echo "row $row: no test has the name $test"
            failed=1
        }
        # A reason for a skip follows other text on its line if the test harness has printed there.
        sed -n "s/.*\(skipped: .*\)/row $row: ${test}: \1/p" "$output"
    done
done
printf 'load %s on %d CPUs, Linux %s\n' "$(cut -d' ' -f1 /proc/loadavg)" "$(nproc)" "$(uname -r)"
exit $failed
