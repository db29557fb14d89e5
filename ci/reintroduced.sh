#!/usr/bin/env bash
# Reintroduces the fixed defects of ci/reintroduced/*.patch, one by one, and checks that the test
# named in each patch fails.
#
# usage: ci/reintroduced.sh [NAME...]      default: all; NAME is a file without .patch, such as A1
#        ci/reintroduced.sh --check        only checks that the patches apply
#
# docs/RELIABILITY.md lists the defects. Each patch is applied to a copy of the tree. Its test must
# pass without the patch. With the patch, it must fail or not end within a minute. If a test passes
# with its patch, the script continues, and exits with status 1 at the end. It also fails if a patch
# does not apply or a test does not pass without its patch. Builds in CARGO_TARGET_DIR (default:
# target/reintroduced).
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null
export CARGO_TERM_COLOR=never CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target/reintroduced}"

patches=()
if [[ ${1-} == --check ]]; then
    for patch in ci/reintroduced/*.patch; do git apply --check "$patch"; done
    exit
elif (($#)); then
    for name; do patches+=("$PWD/ci/reintroduced/$name.patch"); done
else
    patches=("$PWD"/ci/reintroduced/*.patch)
fi

copy=$(mktemp -d)
log=$(mktemp)
trap 'rm -rf "$copy" "$log"' EXIT
# tar -m gives the files new times. Otherwise, cargo could use a build of an earlier, patched copy
# that is in the target directory.
git ls-files -z | tar --null --files-from=- -cf - | tar -xmf - -C "$copy"
cd "$copy"
export GIT_CEILING_DIRECTORIES=$copy

# named PATCH: prints the test binary (`lib` for the unit tests) and the test that the patch names.
named() {
    sed -n 's/^Test: //p' "$1"
}

# target BINARY: prints the option of cargo that selects the binary.
target() {
    if [[ $1 == lib ]]; then printf -- --lib; else printf -- --test=%s "$1"; fi
}

# run SECONDS BINARY TEST: runs one test, with its output in $log.
run() {
    timeout --kill-after=10 "$1" cargo test --quiet "$(target "$2")" -- --exact "$3" >"$log" 2>&1
}

printf 'without patches\n'
binaries=()
for patch in "${patches[@]}"; do
    git apply --check "$patch"
    read -r binary _ < <(named "$patch")
    binaries+=("$(target "$binary")")
done
cargo test --quiet --no-run "${binaries[@]}"
for patch in "${patches[@]}"; do
    read -r binary test < <(named "$patch")
    if ! run 300 "$binary" "$test" || ! grep -q '^running 1 test' "$log"; then
        cat "$log"
        printf '%s does not pass without its patch\n' "$test"
        exit 1
    fi
done

missed=0
for patch in "${patches[@]}"; do
    name=$(basename "$patch" .patch)
    read -r binary test < <(named "$patch")
    git apply "$patch"
    cargo test --quiet --no-run "$(target "$binary")"
    status=0
    run 60 "$binary" "$test" || status=$?
    if ! grep -q '^running 1 test' "$log"; then
        cat "$log"
        printf '%s: %s did not begin\n' "$name" "$test"
        exit 1
    fi
    case $status in
        0) printf '%s NOT FOUND by %s\n' "$name" "$test" && missed=1 ;;
        124 | 137) printf '%s found: %s does not end\n' "$name" "$test" ;;
        *) printf '%s found: %s fails\n' "$name" "$test" ;;
    esac
    git apply --reverse "$patch"
done
exit "$missed"
