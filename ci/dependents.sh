#!/usr/bin/env bash
# Crates that depend on async-std or async-io, built unchanged over netpoll: stand-ins/async-std and stand-ins/async-io take their places by
# [patch.crates-io], and each crate's own tests (without those of its documentation) run on them and, as control, on the originals. The rows
# async-std and async-io are these crates' own tests against the stand-ins.
#
#   ci/dependents.sh [--write] [six | CRATE...]
#
# Without names: all of ci/dependents.txt. `six` names those that `.ci/run full` takes. --write puts the rows into docs/DEPENDENTS.md and
# README.md, in place of earlier rows of the same crates. A row of the control is kept in the target directory and used again.
#
# Fails if a crate that builds with the originals does not build on netpoll, or if fewer of its tests pass there.
#
# The crates are copied from cargo's registry into a temporary directory. A server that a crate's tests start must be installed
# (Debian: redis-server); without it the crate is left out and named.
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null

readonly root=$PWD
readonly target=${DEPENDENTS_TARGET:-$root/target/dependents}
readonly list=$root/ci/dependents.txt
readonly six=(async-h1 async-process async-sse http-types stop-token tide)
export CARGO_TERM_COLOR=never CARGO_PROFILE_DEV_DEBUG=0 RUSTFLAGS=--cap-lints=warn

write=0
if [[ ${1-} == --write ]]; then
    write=1
    shift
fi
names=("$@")
[[ ${1-} != six ]] || names=("${six[@]}")
if ((${#names[@]} == 0)); then
    mapfile -t names < <(sed '/^#/d; s/ .*//' "$list")
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# Tests of standard input wait for a line that must not come, nor may the input end.
mkfifo "$scratch/silence"
exec 9<>"$scratch/silence"
mkdir -p "$target/logs" "$target/control-rows" "$scratch/source/src"

# A package that depends on all of them and is never built: cargo fetches their sources and says where they are.
{
    printf '[package]\nname = "source"\nversion = "0.0.0"\nedition = "2021"\n[workspace]\n[dependencies]\n'
    for name in "${names[@]}"; do
        version=$(awk -v name="$name" '$1 == name { print $2 }' "$list")
        [[ -n $version ]] || { printf '%s is not in ci/dependents.txt\n' "$name" >&2; exit 2; }
        printf '"%s" = "=%s"\n' "$name" "$version"
    done
} >"$scratch/source/Cargo.toml"
: >"$scratch/source/src/lib.rs"
cargo metadata --quiet --manifest-path "$scratch/source/Cargo.toml" --format-version 1 |
    grep -o '"manifest_path":"[^"]*"' | cut -d'"' -f4 >"$scratch/manifests"

# own_tests NAME VERSION ORIGINAL COPY SIDE: a package with the tests of async-std or async-io, which depends on it.
own_tests() {
    local name=$1 version=$2 original=$3 copy=$4 side=$5 features=()
    [[ $side == netpoll ]] || version="=$version"
    [[ $name != async-std ]] || features=('"attributes"' '"unstable"')
    mkdir -p "$copy/src"
    : >"$copy/src/lib.rs"
    cp -r "$original/tests" "$copy/tests"
    {
        printf '[package]\nname = "own-tests-of-%s"\nversion = "0.0.0"\nedition = "2021"\n' "$name"
        # The tests' gates for what is unstable there.
        printf '[features]\ndefault = ["unstable"]\nunstable = []\n[dependencies]\n'
        printf '"%s" = { version = "%s", features = [%s] }\n' "$name" "$version" "$(IFS=,; printf '%s' "${features[*]}")"
        printf 'async-channel = "2"\nfemme = "2.1"\nfutures = "0.3"\nfutures-lite = "2"\nparking = "2"\nrand = "0.8"\n'
        printf 'pin-project-lite = "0.2"\nrand_xorshift = "0.3"\ntempfile = "3"\n'
    } >"$copy/Cargo.toml"
}

# run SIDE NAME VERSION FEATURES SKIP: tests of one crate. Prints PASSED ALL, or "- -" if it does not build.
run() {
    local side=$1 name=$2 version=$3 features=$4 skip=$5
    local copy=$scratch/$side/$name log=$target/logs/$name-$side.txt
    local arguments=() filters=() patch=()
    mkdir -p "$scratch/$side"
    local original
    original=$(dirname "$(grep "/$name-$version/Cargo.toml$" "$scratch/manifests")")
    if [[ -e $root/stand-ins/$name ]]; then
        own_tests "$name" "$version" "$original" "$copy" "$side"
    else
        cp -r "$original" "$copy"
        rm -f "$copy/Cargo.lock"
    fi
    if [[ $features != - ]]; then
        if [[ $features == no-default* ]]; then
            arguments+=(--no-default-features)
            features=${features#no-default}
            features=${features#,}
        fi
        arguments+=(--features "$features")
    fi
    if [[ $skip != - ]]; then
        local part
        for part in ${skip//,/ }; do filters+=(--skip "$part"); done
    fi
    if [[ $side == netpoll ]]; then
        local stand_in
        for stand_in in async-std async-io; do
            patch+=(--config "patch.crates-io.$stand_in.path='$root/stand-ins/$stand_in'")
        done
    fi
    local common=(--manifest-path "$copy/Cargo.toml" --target-dir "$target/$side" "${patch[@]}")
    if ! timeout --kill-after=10 3000 cargo test "${common[@]}" --tests --no-run "${arguments[@]}" >"$log" 2>&1; then
        printf -- '- -\n'
        return
    fi
    # What it was built with.
    if [[ $side == netpoll ]] && ! grep -A1 -E '^name = "async-(std|io)"' "$copy/Cargo.lock" | grep -qE '"(1.13|2).99'; then
        printf 'it was not built with a stand-in\n' >>"$log"
        printf -- '- -\n'
        return
    fi
    timeout --kill-after=10 900 cargo test "${common[@]}" --tests --no-fail-fast "${arguments[@]}" -- "${filters[@]}" \
        <&9 >>"$log" 2>&1 || true
    # The tests' programs are as large as all that they depend on together.
    cargo clean --quiet --package "$(sed -n '/^\[package\]/,/^name/s/^name = "\(.*\)"/\1/p' "$copy/Cargo.toml")" "${common[@]}" 2>>"$log" || true
    sed -n 's/^test result: .* \([0-9]*\) passed; \([0-9]*\) failed.*/\1 \2/p' "$log" |
        awk '{ passed += $1; failed += $2 } END { print passed + 0, passed + failed }'
}

rows=$scratch/rows
: >"$rows"
worse=()
for name in "${names[@]}"; do
    read -r _ version features skip server < <(awk -v name="$name" '$1 == name' "$list")
    if [[ $server != - ]] && ! command -v "$server" >/dev/null; then
        printf '%-18s left out: %s is not installed\n' "$name" "$server"
        continue
    fi
    kept=$target/control-rows/$name-$version
    if [[ ! -e $kept ]]; then
        run control "$name" "$version" "$features" "$skip" >"$scratch/row"
        mv "$scratch/row" "$kept"
    fi
    read -r control_passed control_all <"$kept"
    read -r passed all < <(run netpoll "$name" "$version" "$features" "$skip")
    if [[ $passed == - ]]; then
        result='does not build'
        [[ $control_passed == - ]] || worse+=("$name")
    elif ((all == 0)); then
        result='builds, has no tests'
    else
        result="$passed of $all"
        [[ $control_passed == - ]] || ((passed >= control_passed)) || worse+=("$name")
    fi
    control="$control_passed of $control_all"
    [[ $control_passed != - ]] || control='does not build'
    [[ $control_all != 0 ]] || control='builds'
    printf '%-18s %-8s %s (control %s)\n' "$name" "$version" "$result" "$control"
    printf '| %s | %s | %s | %s | %s |\n' "$name" "$version" "$result" "$control" "${server/#-/}" >>"$rows"
done

# Puts the rows between the two marks of a document, sorted, in place of earlier rows of the same crates.
place() {
    local document=$1 kept
    kept=$(sed -n '/<!-- dependents -->/,/<!-- end -->/p' "$document" | grep '^| [a-z]' | grep -v '^| crate' || true)
    {
        sed '/<!-- dependents -->/q' "$document"
        printf '| crate | version | tests that pass on netpoll | on the originals | server |\n|---|---|---|---|---|\n'
        {
            cat "$rows"
            while IFS= read -r row; do
                [[ -z $row ]] || grep -q "^| $(cut -d' ' -f2 <<<"$row") " "$rows" || printf '%s\n' "$row"
            done <<<"$kept"
        } | sort
        sed -n '/<!-- end -->/,$p' "$document"
    } >"$scratch/document"
    cp "$scratch/document" "$document"
}
if ((write)); then
    place docs/DEPENDENTS.md
    place README.md
fi

for name in "${worse[@]}"; do
    printf '\n---- %s\n' "$name"
    grep -E '^(error|test .* FAILED|---- )' -A4 "$target/logs/$name-netpoll.txt" | tail -n 40
done
printf '%d crates, %d with fewer tests than on the originals\n' "$(wc -l <"$rows")" "${#worse[@]}"
((${#worse[@]} == 0))
