#!/usr/bin/env bash
# Prints the coverage of each file of src, except files that only tests use: the numbers of
# functions and lines, how many of them no test runs, and the share of the others. Installs rustup's
# component llvm-tools if it is missing.
#
# usage: ci/coverage.sh [OPTION]...      options of `cargo test`, such as --test NAME;
#                                        default: --lib --tests
#
# Dependencies are neither instrumented nor built again. Child processes of a test count as well,
# unless they are killed or abort. A test that fails does not end the script. The output is in
# target/coverage: report.txt, lines.txt (the annotated sources) and tests.txt.
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null
readonly out=$PWD/target/coverage

rustup component list --installed | grep -q '^llvm-tools' || timeout 300 rustup component add llvm-tools
tools=$(rustc --print target-libdir)/../bin
rm -rf "$out"
mkdir -p "$out"
cat >"$out/wrapper" <<'SH'
#!/bin/sh
exec "$@" -C instrument-coverage
SH
chmod +x "$out/wrapper"
export RUSTC_WORKSPACE_WRAPPER=$out/wrapper LLVM_PROFILE_FILE=$out/%p-%8m.profraw
(($#)) || set -- --lib --tests

# An instrumented test may be too slow and fail. Its lines count nevertheless, so the script
# continues.
cargo test --no-fail-fast "$@" >"$out/tests.txt" 2>&1 || printf 'some tests failed: %s\n' "$out/tests.txt"
mapfile -t binaries < <(sed -n 's/^ *Running .* (\(.*\))$/\1/p' "$out/tests.txt")
((${#binaries[@]} > 0))

find "$out" -name '*.profraw' >"$out/list.txt"
"$tools/llvm-profdata" merge --sparse --failure-mode=warn --input-files="$out/list.txt" --output="$out/all.profdata"
find "$out" -name '*.profraw' -delete
objects=("${binaries[0]}")
for binary in "${binaries[@]:1}"; do
    objects+=(--object "$binary")
done
only=(--ignore-filename-regex '(\.cargo|rustc|/tests/|/macros/|/fuzz/|_tests\.rs|seam\.rs)')
"$tools/llvm-cov" report "${objects[@]}" --instr-profile "$out/all.profdata" "${only[@]}" --show-region-summary=false \
    --show-branch-summary=false >"$out/report.txt"
"$tools/llvm-cov" show "${objects[@]}" --instr-profile "$out/all.profdata" "${only[@]}" --show-line-counts-or-regions=false \
    >"$out/lines.txt"
cut -c1-150 "$out/report.txt"
