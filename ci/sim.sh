#!/usr/bin/env bash
# Simulations: the simulated kernel's own tests and swarm, and tests/sim.rs, each of its tests with SEEDS seeds (1000), twice, with equal digests.
set -euo pipefail
cd "$(dirname "$0")/.."
readonly seeds="${1:-1000}"
NETPOLL_SWARM="$seeds" cargo test --release --features sim --lib -- sim::
NETPOLL_SEEDS="$seeds" NETPOLL_SIM=twice cargo test --release --features sim --test sim
