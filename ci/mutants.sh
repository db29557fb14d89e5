#!/usr/bin/env bash
# Counts the mutants of net/fd, net/net_fd.rs and rt that the tests catch, on x86-64 Linux.
# cargo-mutants (cargo install cargo-mutants) changes one operator, value or call at a time, and
# some test has to fail; a hanging test counts as failing. Each mutant is tested with the unit
# tests. Mutants that survive are tested with integration tests, the quick ones first, and then with
# the models under shuttle.
#
# usage: ci/mutants.sh [K/N [FILE]...]      default: sample 0 of 16 of these files
#
# The sample has the same share of every file's mutants, chosen by a hash of a mutant's name without
# its line. So a change of one file does not change the sample of another file, and changes little
# of its own. Tests, implementations of Debug, and the injected bugs, which are active only in
# models/, are left out.
#
# Prints the counts of each round and the final survivors. Survivors do not make the script fail.
# They are in target/mutants/mutants.out/missed.txt, and the output of the tests is in
# target/mutants/{unit,quick,slow,models}.out/log.
set -euo pipefail

# --first-failure SECONDS COMMAND...: runs a test binary for cargo. Kills it, and exits with status
# 101, at the first test that fails, after SECONDS without output and, if SECONDS is less than 60,
# when a test takes a minute.
if [[ ${1:-} == --first-failure ]]; then
    exec {output}< <(exec setsid "${@:3}" 2>&1)
    tests=$!
    # `read` returns a status above 128 if the time limit has passed.
    while IFS= read -r -t "$2" -u "$output" line || { (($? > 128)) && line='test hangs ... FAILED'; }; do
        printf '%s\n' "$line"
        if [[ $line == 'test '*'... FAILED' ]] || { (($2 < 60)) && [[ $line == 'test '*'running for over 60 seconds' ]]; }; then
            kill -KILL -- "-$tests" || true
            exit 101
        fi
    done
    wait "$tests"
    exit
fi

cd "$(dirname "$0")/.."
exec </dev/null
export RUST_BACKTRACE=0 CARGO_PROFILE_DEV_DEBUG=0 CARGO_INCREMENTAL=1 NETPOLL_FUZZ_INPUTS=300

readonly sample=${1:-0/16}
shift $(($# > 0))
(($#)) || set -- 'src/net/fd/*.rs' src/net/net_fd.rs 'src/rt/**/*.rs'
readonly files=("${@/#/--file=}")
readonly quick=(accept admission async_fd builder close close_matrix dial edges foreign_executors fork half_close io listen
    local_tasks options pipe raw readiness runtime timers udp unix unix_datagram wakes write_all zero_copy)
readonly slow=(cancel deadline dialer errno idle limits reuse scheduler shutdown tcp)
readonly out=$PWD/target/mutants

rm -rf "$out/mutants.out" "$out/mutants.out.old"
mkdir -p "$out"
# Writes the lines of injected bugs as FILE:LINE: those that name a bug, and the bodies of
# `if injected_bug!(…) { … }`.
git ls-files 'src/net/fd/*.rs' src/net/net_fd.rs 'src/rt/*.rs' | xargs awk '
    FNR == 1 { inside = 0 }
    /injected_bug!\(/ { print FILENAME ":" FNR ":" }
    inside { print FILENAME ":" FNR ":"; if (index($0, end) == 1) inside = 0 }
    /if injected_bug!\(.*\{$/ { match($0, /^ */); end = substr($0, 1, RLENGTH) "}"; inside = 1 }
' >"$out/injected.txt"
cargo mutants --list --no-config --exclude-re '<impl .*Debug for' "${files[@]}" >"$out/all.txt"
# Sorts the mutants of each file by a hash of their names, and takes the same share of each file.
awk -F : '
    BEGIN { for (i = 32; i < 127; i++) code[sprintf("%c", i)] = i }
    NR == FNR { injected[$1 FS $2]; next }
    $1 FS $2 in injected { next }
    {
        name = $0
        sub(/:[0-9]+:[0-9]+:/, "", name)
        name = name " " ++seen[name]
        hash = 0
        for (i = 1; i <= length(name); i++) hash = (hash * 31 + code[substr(name, i, 1)]) % 1000003
        print $1, hash * 611953 % 1000003, $0
    }' "$out/injected.txt" "$out/all.txt" | sort -k 1,1 -k 2,2n -k 3 >"$out/sorted.txt"
awk -v part="${sample%/*}" -v parts="${sample#*/}" '
    NR == FNR { total[$1]++; next }
    { rank = rank * (file == $1); file = $1 }
    rank >= int(part * total[file] / parts + 0.5) && rank < int((part + 1) * total[file] / parts + 0.5) { sub(/^[^ ]* [^ ]* /, ""); print }
    { rank++ }' "$out/sorted.txt" "$out/sorted.txt" >"$out/sample.txt"
{
    printf 'examine_re = [\n'
    sed "s/[].[\\^\$*+?(){}|]/\\\\&/g; s/.*/  '''^&\$''',/" "$out/sample.txt"
    printf ']\n'
} >"$out/config.toml"
printf 'sample %s: %d of %d\n' "$sample" "$(wc -l <"$out/sample.txt")" "$(wc -l <"$out/sorted.txt")"

# round NAME SECONDS OPTION...: tests the mutants with these options of cargo-mutants, prints the
# counts and keeps the output in NAME.out. SECONDS is that of --first-failure.
#
# --cargo-arg selects the tests that are built. Arguments after `--` would select those that are
# run. The files are named again, because examine_re does not exclude mutants that delete a field.
# The only such mutant is tested in addition to the sample. cargo-mutants exits with 2 if mutants
# are missed, and with 3 if tests time out.
round() {
    local name=$1 seconds=$2
    shift 2
    local -x CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="$PWD/ci/mutants.sh --first-failure $seconds"
    cargo mutants --config "$out/config.toml" "${files[@]}" --output target/mutants --no-shuffle --timeout 900 --build-timeout 900 \
        --cargo-arg=--target-dir="$out/build" "$@" || (($? == 2 || $? == 3))
    printf '%s:' "$name"
    for what in caught timeout missed unviable; do
        printf ' %s %d' "$what" "$(wc -l <"$out/mutants.out/$what.txt")"
    done
    printf '\n'
    cp -r "$out/mutants.out" "$out/$name.out"
}

rm -rf "$out"/{unit,quick,slow,models}.out
round unit 40 --cargo-arg=--lib
round quick 60 --iterate "${quick[@]/#/--cargo-arg=--test=}"
# The skipped test has a time limit. On a busy machine, it may fail without a mutant.
round slow 120 --iterate "${slow[@]/#/--cargo-arg=--test=}" -- -- --skip backlog_is_shared_with_thread_sleeping_in_epoll
own=profile.release.package.netpoll-models
NETPOLL_SCHEDULES=1000 round models 90 --iterate --baseline skip --test-package netpoll-models --profile release \
    --cargo-arg=--features=shuttle --cargo-arg=--config=$own.opt-level=0 --cargo-arg=--config=$own.debug=0 -- -- --skip finds_
cat "$out/mutants.out/missed.txt"
