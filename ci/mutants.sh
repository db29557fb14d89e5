#!/usr/bin/env bash
# Mutation score of the core: cargo-mutants (cargo install cargo-mutants) changes one operator, value or call at a time, and some test has to
# fail. Each mutant is first shown to the models under shuttle, which are built in seconds; who survives, to the unit tests, and then to
# the tests of the core. The same shard is the same sample, as long as the sources are.
#   ci/mutants.sh [K/N [FILE…]]      shard 0/10 unless told, of the files below unless told
# Left out are the planted bugs, which are not in the crate but in models/, and Debug. A test that comes to no end counts as a failure.
# Survivors: target/mutants/mutants.out/missed.txt.
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null
export RUST_BACKTRACE=0

readonly shard=${1:-0/10}
shift $(($# > 0))
(($#)) || set -- src/net/fd/{fd_mutex,operation,fd}.rs src/rt/{poll_desc,timer,waiters,poll_cache,closings,parker}.rs src/rt/sched/{queue,idle}.rs
readonly core=(tcp close cancel deadline timers scheduler wakes)

# Lines of `if planted!(…) { … }`, as `file:line:`.
planted=$(awk '
    FNR == 1 { inside = 0 }
    /planted!\(/ { print FILENAME ":" FNR ":" }
    inside { print FILENAME ":" FNR ":"; if (index($0, end) == 1) inside = 0 }
    /if planted!\(.*\{$/ { match($0, /^ */); end = substr($0, 1, RLENGTH) "}"; inside = 1 }
' "$@")
options=(--output target/mutants --sharding round-robin --shard "$shard" --no-shuffle --exclude-re '<impl .*Debug for')
for file in "$@"; do
    options+=(--file "$file")
done
for line in $planted; do
    options+=(--exclude-re "^$line")
done

# Arguments after `--` would choose what is run, not what is built: hence --cargo-arg.
# cargo-mutants says by its status whether some are missed; the counts at the end say it better.
round() {
    local name=$1 seconds=$2
    shift 2
    cargo mutants "${options[@]}" --timeout "$seconds" --build-timeout 600 "$@" || (($? == 2 || $? == 3))
    # Caught, timed out, missed and (of the rest) not to be built.
    printf '%s:' "$name"
    for what in caught timeout missed unviable; do
        printf ' %s %d' "$what" "$(wc -l <"target/mutants/mutants.out/$what.txt")"
    done
    printf '\n'
}

rm -rf target/mutants
mkdir -p target/mutants
own=profile.release.package.netpoll-models
NETPOLL_SCHEDULES=1000 round models 60 --baseline skip --test-package netpoll-models --profile release --cargo-arg=--features=shuttle \
    --cargo-arg=--config=$own.opt-level=0 --cargo-arg=--config=$own.debug=0 -- -- --skip finds_
NETPOLL_FUZZ_INPUTS=300 round unit 90 --iterate --cargo-arg=--lib
round core 180 --iterate "${core[@]/#/--cargo-arg=--test=}"
cat target/mutants/mutants.out/missed.txt
