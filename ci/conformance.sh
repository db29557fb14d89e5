#!/usr/bin/env bash
# Runs async-std's own tests, examples and book programs on this crate. The script takes them from
# async-std's package in the registry, changes the crate's name, and builds and runs them in
# target/conformance. If a program needs a client or input, the script provides it. The script
# checks the answer, the output or the exit status of each program.
#
# usage: ci/conformance.sh
#
# Prints the result of each entry, the end of the output of each entry that failed, the entries that
# are left out, and "N of M tests and programs ... pass". Fails unless every entry passes. Entries
# in the lists `tests_later` and `programs_later` count in M but are not run.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly version=1.13.2
readonly tests=(tcp addr block_on io_timeout timeout io_copy buf_writer task_local collect stream udp uds verbose_errors)
readonly programs=(
    readme hello-world task-name task-local logging stdin-echo stdin-timeout socket-timeouts
    tcp-echo tcp-client tcp-ipv4-and-6-echo udp-echo udp-client a-chat
    book-accept-loop book-receiving-messages book-all-together book-chat book-block-on book-panic
)
# Entries that wait for a part of this crate. When that part exists, move the names to the lists
# above.
readonly tests_later=()
readonly programs_later=()

readonly left_out="\
tests channel condvar mutex rwlock: netpoll does not have the modules sync and channel (see async-lock and async-channel)
test open_file of verbose_errors, examples line-count list-dir print-file, book concepts: netpoll has no files (see async-fs)
example surf-web: surf depends on async-std
book blocks that are excerpts of the programs above, or that use the package async-listen"

readonly root=$PWD
readonly scratch=$root/target/conformance
readonly run=$scratch/run
readonly out=$scratch/output
export CARGO_TERM_COLOR=never
# shellcheck source=ci/conformance-programs.sh
source ci/conformance-programs.sh

rm -rf "$run" "$out"
mkdir -p "$scratch/source/src" "$run/src/bin/a-chat" "$run/tests" "$out"

# This package depends on async-std and is never built. cargo fetches the sources for it and reports
# where they are.
cat >"$scratch/source/Cargo.toml" <<TOML
[package]
name = "source"
version = "0.0.0"
edition = "2021"

[dependencies]
async-std = { version = "=$version", default-features = false }

[workspace]
TOML
: >"$scratch/source/src/lib.rs"
manifest=$(cargo metadata --manifest-path "$scratch/source/Cargo.toml" --format-version 1 |
    grep -o "\"manifest_path\":\"[^\"]*/async-std-$version/Cargo.toml\"" | cut -d'"' -f4)
source=$(dirname "$manifest")

# The dependencies are those of the tests and examples. async-std re-exports this version of
# async-channel.
cat >"$run/Cargo.toml" <<TOML
[package]
name = "conformance"
version = "0.0.0"
edition = "2018"

[dependencies]
netpoll = { path = "$root" }
async-channel = "1.9"
femme = "2.1"
futures = "0.3"
log = "0.4"
pin-project-lite = "0.2"
tempfile = "3"

# This feature gates the tests and examples of unstable items.
[features]
default = ["unstable"]
unstable = []

[lints.rust]
warnings = "allow"

[dev-dependencies]
tempfile = "3"

[workspace]
TOML
: >"$run/src/lib.rs"
if [[ -e $scratch/Cargo.lock ]]; then cp "$scratch/Cargo.lock" "$run/Cargo.lock"; fi

# rename [FILE]...: renames the crate, and replaces fixed addresses and ports with those of this
# run.
host=127.$((BASHPID / 250 % 250 + 1)).$((BASHPID % 250 + 1)).1
port=$((20000 + RANDOM % 5000 * 2))
rename() {
    sed -e 's/\basync_std\b/netpoll/g' -e 's/\bnetpoll::channel\b/async_channel/g' \
        -e "s/127\.0\.0\.1:8080/$host:$port/g" -e "s/127\.0\.0\.1:8081/$host:$((port + 1))/g" \
        -e "s/\[::1\]:8080/[::1]:$port/g" -e "s/example\.com:80/$host:$port/g" "$@"
}

for name in "${tests[@]}"; do
    rename "$source/tests/$name.rs" >"$run/tests/$name.rs"
done
# Removes the test `open_file`, and its import of the module `fs`.
sed -i -e 's/{fs, /{/' -e '0,/^#\[test\]/{/^#\[test\]/d}' -e '/^fn open_file/,/^}/d' "$run/tests/verbose_errors.rs"
place_programs

if ! timeout --kill-after=10 600 cargo build --quiet --keep-going --manifest-path "$run/Cargo.toml" --target-dir "$scratch/target" \
    --bins --tests >"$out/build.txt" 2>&1; then
    tail -n 60 "$out/build.txt"
fi
cp "$run/Cargo.lock" "$scratch/Cargo.lock"

passed=0
total=0
missing=0
broken=()
# result NAME PASSED ALL OUTPUT: counts and prints a result. OUTPUT is the file with the output.
result() {
    passed=$((passed + $2))
    total=$((total + $3))
    printf '%-26s %d of %d\n' "$1" "$2" "$3"
    (($2 == $3)) || broken+=("$4")
}

# A test and a program need a standard input on which no line arrives and which does not end.
mkfifo "$out/silence"
exec 9<>"$out/silence"

for name in "${tests[@]}"; do
    output=$out/test-$name.txt
    timeout --kill-after=10 120 cargo test --quiet --manifest-path "$run/Cargo.toml" --target-dir "$scratch/target" --test "$name" \
        <&9 >"$output" 2>&1 || true
    if read -r ok failed < <(sed -n 's/^test result: .* \([0-9]*\) passed; \([0-9]*\) failed.*/\1 \2/p' "$output"); then
        all=$((ok + failed))
    else
        # The test binary does not build, or did not end.
        ok=0
        all=$(grep -c '^ *#\[test\]' "$run/tests/$name.rs")
    fi
    result "test $name" "$ok" "$all" "$output"
done

for name in "${programs[@]}"; do
    output=$out/program-$name.txt
    if drive "$name" >"$output" 2>&1; then ok=1; else ok=0; fi
    result "program $name" "$ok" 1 "$output"
done

for name in "${tests_later[@]}"; do
    missing=$((missing + $(grep -c '^ *#\[test\]' "$source/tests/$name.rs")))
    printf '%-26s not yet\n' "test $name"
done
for name in "${programs_later[@]}"; do
    missing=$((missing + 1))
    printf '%-26s not yet\n' "program $name"
done

for output in "${broken[@]}"; do
    printf '\n---- %s\n' "${output#"$root/"}"
    tail -n 60 "$output"
done
printf 'Left out:\n%s\n' "$left_out"
printf '%d of %d tests and programs of async-std %s pass; %d wait for missing parts of this crate\n' \
    "$passed" $((total + missing)) "$version" "$missing"
((passed == total && total > 0))
