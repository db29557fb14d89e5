#!/usr/bin/env bash
# Runs random programs over the whole runtime, each in its own process (tests/stress).
#   ci/runtime-stress.sh SECONDS [FIRST]     from seed FIRST on, or from a random one
# A failing program is printed with its seed. Smaller ones are then tried for two minutes. `NETPOLL_STRESS_SEED=n cargo test --test stress random`
# runs the program of seed n again; thread scheduling varies, so it may pass. The other variables are in tests/stress/main.rs.
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null
readonly seconds=${1:?seconds} first=${2:-$((RANDOM << 30 | RANDOM << 15 | RANDOM))}

printf 'programs from seed %d on, for %d s\n' "$first" "$seconds"
export NETPOLL_STRESS_SECONDS=$seconds NETPOLL_STRESS_FIRST=$first
export NETPOLL_STRESS_JOBS=${NETPOLL_STRESS_JOBS:-$(($(nproc) * 2))} NETPOLL_STRESS_SHRINK=${NETPOLL_STRESS_SHRINK:-120}
cargo test --test stress -- --nocapture random_programs
