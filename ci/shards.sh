#!/usr/bin/env bash
# Runs tests with several shards of the poller: the unit and integration tests on two workers, and
# random programs, which set their own number of workers, for 120 s. Does this first with 2 and then
# with 4 shards. With `quick`, uses 4 shards, and runs the unit tests, some integration tests (of
# wake-ups, sleeps, deadlines, closes, shutdowns and forks, among others), and random programs for
# 10 s.
#
# usage: ci/shards.sh [quick|full]      default: full
#
# Tests of epoll's own system calls select one shard themselves. models/src/shards.rs has the models
# of several shards.
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null
export NETPOLL_THREADS=2

if [[ ${1-} == quick ]]; then
    export NETPOLL_POLLER_SHARDS=4
    cargo test --lib --test shards --test runtime --test scheduler --test block_on --test foreign_executors --test idle --test timers \
        --test edges --test deadline --test close --test cancel --test shutdown --test fork
    ci/runtime-stress.sh 10
else
    # Some tests run the examples.
    cargo build --examples
    for NETPOLL_POLLER_SHARDS in 2 4; do
        export NETPOLL_POLLER_SHARDS
        printf '%s shards\n' "$NETPOLL_POLLER_SHARDS"
        cargo test --no-fail-fast --lib --tests
        ci/runtime-stress.sh 120
    done
fi
