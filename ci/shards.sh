#!/usr/bin/env bash
# Runs the tests with several shards of the poller on two workers: all tests, and random programs for 120 s, with 2 and with 4 shards. With
# `quick`, it uses 4 shards, and runs the unit tests, some integration tests (of wake-ups, sleeps, deadlines, closes, shutdowns and forks, among
# others), and random programs for 10 s.
#
# usage: ci/shards.sh [quick|full]
# Tests of epoll's own system calls select one shard themselves. The models of several shards are in models/src/shards.rs.
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
