#!/usr/bin/env bash
# async-std's own tests against this crate: taken from its package in the registry, with only the crate's name changed, built and run in
# target/. Prints "N of M" and fails if a test fails.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly version=1.13.2
readonly tests=(tcp udp uds addr block_on io_timeout timeout io_copy buf_writer task_local)
readonly root=$PWD
readonly scratch=$root/target/conformance
export CARGO_TERM_COLOR=never

mkdir -p "$scratch/source/src" "$scratch/run/src" "$scratch/run/tests"

# A package that depends on async-std and is never built: cargo fetches the sources and says where they are.
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

cat >"$scratch/run/Cargo.toml" <<TOML
[package]
name = "conformance"
version = "0.0.0"
edition = "2018"

[dependencies]
netpoll = { path = "$root" }

[dev-dependencies]
tempfile = "3"

[workspace]
TOML
: >"$scratch/run/src/lib.rs"
rm -f "$scratch"/run/tests/*.rs "$scratch/silence"

# One test waits for a line on standard input that must not come, nor may the input end.
mkfifo "$scratch/silence"
exec <>"$scratch/silence"

passed=0
total=0
broken=()
for name in "${tests[@]}"; do
    sed 's/\basync_std\b/netpoll/g' "$source/tests/$name.rs" >"$scratch/run/tests/$name.rs"
    output=$scratch/$name.txt
    timeout --kill-after=10 300 cargo test --quiet --manifest-path "$scratch/run/Cargo.toml" --target-dir "$scratch/target" --test "$name" \
        >"$output" 2>&1 || true
    if read -r ok failed < <(sed -n 's/^test result: .* \([0-9]*\) passed; \([0-9]*\) failed.*/\1 \2/p' "$output"); then
        all=$((ok + failed))
    else
        # It does not build, or did not end.
        ok=0
        all=$(grep -c '^ *#\[test\]' "$scratch/run/tests/$name.rs")
    fi
    passed=$((passed + ok))
    total=$((total + all))
    printf '%-12s %d of %d\n' "$name" "$ok" "$all"
    ((ok == all)) || broken+=("$output")
done

for output in "${broken[@]}"; do
    printf '\n---- %s\n' "${output#"$root/"}"
    tail -n 60 "$output"
done
printf '%d of %d of the tests of async-std %s pass\n' "$passed" "$total" "$version"
((passed == total && total > 0))
