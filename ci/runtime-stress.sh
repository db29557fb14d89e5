#!/usr/bin/env bash
# Runs random programs over the whole runtime, each in a separate process (tests/stress).
#
# usage: ci/runtime-stress.sh SECONDS [FIRST]      from seed FIRST on; default: a random seed
#
# If a program fails, it is printed with its seed, smaller programs are tried for two minutes, and
# the script fails. NETPOLL_STRESS_JOBS sets the number of processes at a time (default: two per
# CPU), and NETPOLL_STRESS_SHRINK the seconds for smaller programs. tests/stress/main.rs lists the
# other variables. `NETPOLL_STRESS_SEED=n cargo test --test stress random` runs the program of seed
# n again. It may pass, because the scheduling of threads varies.
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null
readonly seconds=${1:?seconds} first=${2:-$((RANDOM << 30 | RANDOM << 15 | RANDOM))}

printf 'programs from seed %d on, for %d s\n' "$first" "$seconds"
export NETPOLL_STRESS_SECONDS=$seconds NETPOLL_STRESS_FIRST=$first
export NETPOLL_STRESS_JOBS=${NETPOLL_STRESS_JOBS:-$(($(nproc) * 2))} NETPOLL_STRESS_SHRINK=${NETPOLL_STRESS_SHRINK:-120}
cargo test --test stress -- --nocapture random_programs
