#!/usr/bin/env bash
# Runs simulations. The swarm consists of random programs (tests/sim_swarm).
#
# usage: ci/sim.sh [SEEDS | quick | own | capture | opt-out | reintroduced [NAME]...]
#
#   SEEDS          runs the unit tests of the simulator, and the simulations of tests/sim.rs and
#                  tests/sim_examples.rs, with SEEDS seeds. Each simulation runs twice, and both
#                  digests must be equal. Runs the swarm with a hundred times as many seeds. These
#                  are release builds. In debug builds, runs the protocols of other projects, twice
#                  each with a twentieth of the seeds, `capture` and `opt-out`. The default is 1000.
#   quick          the step of .ci/run: the tests of the feature `sim`, the unit tests of the
#                  simulator, the swarm with 10,000 seeds, the inputs of the fuzz target `sockets`,
#                  the protocols of other projects, twice, and `own`
#   own            the crate's own tests of ci/sim-own.txt, in simulations
#   capture        checks a capture with tshark; skipped if tshark is not installed
#   opt-out        tests a program that defines clock_gettime and getrandom itself, built with
#                  --cfg netpoll_no_interpose
#   reintroduced   checks that the swarm finds the defect of each ci/reintroduced/NAME.patch;
#                  without names, of each patch whose defect it can find. If the swarm does not end
#                  within 15 minutes, the defect counts as found.
#
# The output of `own` and `reintroduced` is in target/sim-own.log and target/sim-reintroduced.log.
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null
mkdir -p target

# These programs of README.md need only sockets and time. tests/sim_examples.rs runs them.
readonly examples=(echo "README's first program" echo_deadline udp_echo chat proxy port_scan happy_eyeballs redis_like)

# own: runs the crate's own tests of ci/sim-own.txt in simulations. docs/SIMULATION.md says why
# other tests of their files need the real kernel.
own() {
    local file tests
    while read -r file tests; do
        [[ $file == \#* || -z $file ]] && continue
        printf '%s: ' "$file"
        # shellcheck disable=SC2086
        NETPOLL_SIM=everywhere timeout --kill-after=10 600 cargo test --quiet --features sim --test "$file" -- --exact $tests \
            >target/sim-own.log 2>&1 || {
            printf 'failed\n'
            cat target/sim-own.log
            return 1
        }
        grep '^test result' target/sim-own.log
        grep -q "^test result: ok\. $(wc -w <<<"$tests") passed" target/sim-own.log || {
            printf 'some of the tests of ci/sim-own.txt do not exist\n'
            return 1
        }
    done <ci/sim-own.txt
}

# capture: checks a capture of a simulation with tshark.
capture() {
    if ! command -v tshark >/dev/null; then
        printf 'tshark is not installed: the capture is not checked (apt-get install tshark)\n'
        return
    fi
    local file
    file=$(mktemp --suffix=.pcap)
    NETPOLL_CAPTURE=$file cargo test --quiet --features sim --test sim -- --exact capture_is_written_for_other_tools
    # tshark must find no malformed packet and no wrong checksum.
    local packets malformed
    packets=$(tshark -r "$file" 2>/dev/null | wc -l)
    malformed=$(tshark -r "$file" -o tcp.check_checksum:TRUE -o udp.check_checksum:TRUE -o ip.check_checksum:TRUE \
        -Y '_ws.malformed || tcp.checksum.status == 0 || udp.checksum.status == 0 || ip.checksum.status == 0' 2>/dev/null | wc -l)
    printf 'tshark reads %d packets, %d of them with errors\n' "$packets" "$malformed"
    tshark -r "$file" -q -z io,phs 2>/dev/null | sed -n '/^ip/p;/^  /p' | head -20
    rm -f "$file"
    ((packets > 20 && malformed == 0))
}

# opt_out: tests a program that defines clock_gettime and getrandom itself. It needs a separate
# build.
opt_out() {
    RUSTFLAGS="${RUSTFLAGS:-} --cfg netpoll_no_interpose" CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}/opt-out" \
        cargo test --features sim --test sim_opt_out
}

# The swarm can find these defects, which are in code that a simulation runs: timers, slots,
# budgets, waiters. docs/SIMULATION.md says why it cannot find the others.
readonly findable=(A2 A3 B1 B2 C6)

# reintroduced NAME...: reintroduces defects one by one in a copy of the tree, and checks that the
# swarm finds each.
reintroduced() {
    local copy patch name status=0 names=("$@")
    ((${#names[@]})) || names=("${findable[@]}")
    copy=$(mktemp -d)
    trap 'rm -rf "$copy"' RETURN
    # tar -m gives the files new times. Otherwise, cargo could use a build of an earlier, patched
    # copy.
    git ls-files -z | tar --null --files-from=- -cf - | tar -xmf - -C "$copy"
    export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target/reintroduced}" GIT_CEILING_DIRECTORIES=$copy
    for name in "${names[@]}"; do
        patch=$PWD/ci/reintroduced/$name.patch
        (cd "$copy" && git apply "$patch" && git apply --numstat "$patch" | cut -f3 | xargs touch)
        (cd "$copy" && cargo test --quiet --features sim --test sim_swarm --no-run)
        if (cd "$copy" && NETPOLL_SWARM=10000 timeout --kill-after=10 900 cargo test --quiet --features sim --test sim_swarm random) \
            >target/sim-reintroduced.log 2>&1; then
            printf '%s: not found by the swarm: %s\n' "$name" "$(head -1 "$patch")"
            status=1
        else
            printf '%s: found by the swarm, %s: %s\n' "$name" "$(grep -m1 -o '^seed [0-9]* fails' target/sim-reintroduced.log || true)" \
                "$(head -1 "$patch")"
        fi
        (cd "$copy" && git apply --reverse "$patch" && git apply --numstat "$patch" | cut -f3 | xargs touch)
    done
    return "$status"
}

case "${1:-1000}" in
quick)
    cargo test --features sim --test sim --test sim_network --test sim_worlds --test sim_stall --test sim_paused --test sim_observation \
        --test sim_first_run --test sim_examples --test sim_differential --test sim_failures --test cork_sim --test serve
    cargo test --features sim --lib -- sim::
    NETPOLL_SWARM=10000 cargo test --features sim --test sim_swarm
    cargo test -p netpoll-fuzz --features simulations --test replay sockets_in_simulations
    NETPOLL_SIM=twice cargo test -p netpoll-ecosystem-sim
    own
    ;;
own) own ;;
capture) capture ;;
opt-out) opt_out ;;
reintroduced) reintroduced "${@:2}" ;;
*)
    seeds="${1:-1000}"
    NETPOLL_SWARM="$seeds" cargo test --release --features sim --lib -- sim::
    NETPOLL_SEEDS="$seeds" NETPOLL_SIM=twice cargo test --release --features sim --test sim
    printf '%d examples: %s\n' "${#examples[@]}" "${examples[*]}"
    NETPOLL_SEEDS="$seeds" NETPOLL_SIM=twice cargo test --release --features sim --test sim_examples
    # This is a debug build, because a release build would take longer than the runs.
    NETPOLL_SEEDS=$((seeds < 20 ? 1 : seeds / 20)) NETPOLL_SIM=twice cargo test -p netpoll-ecosystem-sim
    NETPOLL_SWARM=$((seeds * 100)) cargo test --release --features sim --test sim_swarm
    capture
    opt_out
    ;;
esac
