#!/usr/bin/env bash
# Builds crates that depend on async-std or async-io with netpoll instead, without changes to their
# library code. [patch.crates-io] replaces async-std and async-io with the packages in stand-ins.
# Runs each crate's own tests, except those of its documentation, on netpoll and, as a control, on
# the originals. The rows async-std and async-io are these crates' own tests against the stand-ins.
#
# usage: ci/dependents.sh [--write] [six | CRATE...]
#
# CRATE is a name in ci/dependents.txt. By default, all crates of that file are tested. `six` stands
# for the six crates that `.ci/run full` tests. With --write, the script writes the rows to
# docs/DEPENDENTS.md and README.md, where they replace earlier rows of the same crates. A build may
# take 50 minutes, and a test run 15 minutes.
#
# The crates are copied from cargo's registry to a temporary directory. The script starts the server
# that a crate's tests need (ci/dependents/servers.sh), with separate data. If a server is not
# installed, the script skips the crate and names the Debian package. Needs python3 for nginx,
# postgres and rabbitmq-server.
#
# DEPENDENTS_TARGET sets the directory for builds, logs and rows of the control (default:
# target/dependents). The rows of the control are reused by later runs.
#
# Fails if a crate that builds with the originals does not build on netpoll, if fewer of its tests
# pass there, or if an installed server does not start. Exits with status 2 if a CRATE is unknown.
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
source ci/dependents/servers.sh
trap 'rm -rf "$scratch"' EXIT
# Tests of standard input need an input on which no line arrives and which does not end.
mkfifo "$scratch/silence"
exec 9<>"$scratch/silence"
mkdir -p "$target/logs" "$target/control-rows" "$scratch/source/src"
# The database server runs as another user, which must reach its directory.
chmod 711 "$scratch"
: >"$scratch/source/src/lib.rs"
for name in "${names[@]}"; do
    grep -q "^$name " "$list" || { printf '%s is not in ci/dependents.txt\n' "$name" >&2; exit 2; }
done

# source_of NAME VERSION: prints the directory of the crate's source. cargo fetches the source for a
# package that depends on the crate and is never built.
source_of() {
    printf '[package]\nname = "source"\nversion = "0.0.0"\nedition = "2021"\n[workspace]\n[dependencies]\n"%s" = "=%s"\n' "$1" "$2" \
        >"$scratch/source/Cargo.toml"
    rm -f "$scratch/source/Cargo.lock"
    dirname "$(cargo metadata --quiet --manifest-path "$scratch/source/Cargo.toml" --format-version 1 |
        grep -o '"manifest_path":"[^"]*"' | cut -d'"' -f4 | grep "/$1-$2/Cargo.toml$")"
}

# own_tests NAME VERSION ORIGINAL COPY SIDE: creates a package in COPY that has the tests of
# async-std or async-io, and depends on the stand-in (if SIDE is netpoll) or the original.
own_tests() {
    local name=$1 version=$2 original=$3 copy=$4 side=$5 features=()
    [[ $side == netpoll ]] || version="=$version"
    [[ $name != async-std ]] || features=('"attributes"' '"unstable"')
    mkdir -p "$copy/src"
    : >"$copy/src/lib.rs"
    cp -r "$original/tests" "$copy/tests"
    {
        printf '[package]\nname = "own-tests-of-%s"\nversion = "0.0.0"\nedition = "2021"\n' "$name"
        # This feature gates the tests of unstable items.
        printf '[features]\ndefault = ["unstable"]\nunstable = []\n[dependencies]\n'
        printf '"%s" = { version = "%s", features = [%s] }\n' "$name" "$version" "$(IFS=,; printf '%s' "${features[*]}")"
        printf 'async-channel = "2"\nfemme = "2.1"\nfutures = "0.3"\nfutures-lite = "2"\nparking = "2"\nrand = "0.8"\n'
        printf 'pin-project-lite = "0.2"\nrand_xorshift = "0.3"\ntempfile = "3"\n'
    } >"$copy/Cargo.toml"
}

# sqlx_tests ORIGINAL COPY: creates a package in COPY that has sqlx's tests of PostgreSQL and
# depends on sqlx. The tests cannot run in sqlx's own package, whose dev-dependency sqlx-test is not
# published. Leaves out derives, macros, test-attr and types, and rustsec, which sends 4 GiB.
sqlx_tests() {
    local original=$1 copy=$2 test
    mkdir -p "$copy/src" "$copy/sqlx-test/src"
    : >"$copy/src/lib.rs"
    cp -r "$original/tests" "$copy/tests"
    cp "$root/ci/dependents/sqlx_test.rs" "$copy/sqlx-test/src/lib.rs"
    local sqlx='sqlx = { version = "=0.8.6", default-features = false, features = ["macros", "migrate", "postgres", "runtime-async-std"] }'
    printf '[package]\nname = "sqlx-test"\nversion = "0.0.0"\nedition = "2021"\n[dependencies]\nanyhow = "1"\n%s\n' "$sqlx" \
        >"$copy/sqlx-test/Cargo.toml"
    {
        printf '[package]\nname = "own-tests-of-sqlx"\nversion = "0.0.0"\nedition = "2021"\nautotests = false\n'
        for test in describe error migrate postgres query_builder; do
            printf '[[test]]\nname = "%s"\npath = "tests/postgres/%s"\n' "$test" "$test.rs"
        done
        printf '[workspace]\n[dependencies]\n%s\nsqlx-test = { path = "sqlx-test" }\n' "$sqlx"
        printf 'sqlx-core = "=0.8.6"\nsqlx-macros = "=0.8.6"\n'
        printf 'anyhow = "1"\ndotenvy = "0.15"\nfutures = "0.3"\nrand = "0.8"\nserde_json = "1"\nurl = "2"\n'
    } >"$copy/Cargo.toml"
}

# redis_tests COPY: adds the dev-dependency redis-test, which the published manifest of redis lacks,
# and the version of tempfile that redis-test requires. redis-test itself depends on redis, so a
# patch makes it use the copy.
redis_tests() {
    sed -i '/^\[dev-dependencies.tempfile\]/,/^version/s/^version = .*/version = "3"/' "$1/Cargo.toml"
    {
        printf '[dev-dependencies.redis-test]\nversion = "=0.12.0"\n'
        printf '[patch.crates-io]\nredis = { path = "." }\n'
    } >>"$1/Cargo.toml"
}

# run SIDE NAME VERSION FEATURES SKIP SERVER: runs the tests of one crate on netpoll or, if SIDE is
# control, on the originals. Prints the numbers of tests that passed and of all tests, "0 0" if the
# crate is only built, or "- -" if it does not build.
run() (
    trap stop_servers EXIT
    local side=$1 name=$2 version=$3 features=$4 skip=$5 server=$6 within=()
    local copy=$scratch/$side/$name log=$target/logs/$name-$side.txt
    local arguments=() filters=() patch=() runner=() targets=(--tests)
    mkdir -p "$scratch/$side"
    local original
    original=$(source_of "$name" "$version")
    if [[ $name == sqlx ]]; then
        sqlx_tests "$original" "$copy"
    elif [[ -e $root/stand-ins/$name ]]; then
        own_tests "$name" "$version" "$original" "$copy" "$side"
    else
        cp -r "$original" "$copy"
        rm -f "$copy/Cargo.lock"
    fi
    # Removes criterion, which only benchmarks use, and which is larger than most of these crates.
    sed -i '/^\[dev-dependencies.criterion\]/,/^$/d' "$copy/Cargo.toml"
    if [[ $name == redis ]]; then
        redis_tests "$copy"
        # The other tests of redis use blocking connections.
        targets=(--lib --test=parser --test=test_async)
        # A process chooses its runtime once, so each test runs in a separate process. The tests on
        # tokio are skipped by their names.
        runner=(--config "target.'cfg(all())'.runner='$root/ci/dependents/one_by_one.sh'")
    fi
    case $name in
        surf)
            cp "$root/ci/dependents/surf_nginx.rs" "$copy/tests/nginx.rs"
            printf '[dev-dependencies.async-h1]\nversion = "2"\n' >>"$copy/Cargo.toml"
            ;;
        suppaftp)
            # Only the replaced module uses testcontainers.
            cp "$root/ci/dependents/suppaftp_container.rs" "$copy/src/test_container.rs"
            sed -i '/^\[dev-dependencies.testcontainers\]/,/^$/d' "$copy/Cargo.toml"
            ;;
        # async-tar is published without the archives that its tests read. astral-tokio-tar, which
        # descends from the same crate, is published with them.
        async-tar) cp -r "$(source_of astral-tokio-tar 0.5.6)/tests/archives" "$copy/tests/" ;;
    esac
    # The published manifest of zbus lacks the dev-dependency zbus_xml, another package of its
    # repository.
    [[ $name != zbus ]] || printf '[dev-dependencies.zbus_xml]\nversion = "5"\n' >>"$copy/Cargo.toml"
    if [[ $features != - ]]; then
        if [[ $features == no-default* ]]; then
            arguments+=(--no-default-features)
            features=${features#no-default}
            features=${features#,}
        fi
        arguments+=(--features "$features")
    fi
    # `cargo build` does not build the crates that only tests need.
    local build=(test "${targets[@]}" --no-run)
    if [[ $skip == build-only ]]; then
        build=(build --lib)
    elif [[ $skip != - ]]; then
        local part
        for part in ${skip//,/ }; do filters+=(--skip "$part"); done
    fi
    if [[ $side == netpoll ]]; then
        local stand_in
        for stand_in in async-std async-io async-io-1; do
            patch+=(--config "patch.crates-io.$stand_in.package='${stand_in%-1}'")
            patch+=(--config "patch.crates-io.$stand_in.path='$root/stand-ins/$stand_in'")
        done
    fi
    local common=(--manifest-path "$copy/Cargo.toml" --target-dir "$target/build" "${patch[@]}")
    [[ $server != dbus-daemon ]] || within=(dbus-run-session --)
    # The server starts before the build, because sqlx's macros check statements with the database.
    if [[ $server != - ]] && ! start_server "$server" "$copy" >"$target/logs/$server.txt" 2>&1; then
        printf '%s did not start: %s\n' "$server" "$target/logs/$server.txt" >&2
        exit 1
    fi
    if ! timeout --kill-after=10 3000 cargo "${build[@]}" "${common[@]}" "${arguments[@]}" >"$log" 2>&1; then
        printf -- '- -\n'
        return
    fi
    # Checks that the crate was built with a stand-in.
    if [[ $side == netpoll ]] && ! grep -A1 -E '^name = "async-(std|io)"' "$copy/Cargo.lock" | grep -qE '"(1.13|2).99'; then
        printf 'the crate was not built with a stand-in\n' >>"$log"
        printf -- '- -\n'
        return
    fi
    if [[ $skip == build-only ]]; then
        printf '0 0\n'
        return
    fi
    timeout --kill-after=10 900 "${within[@]}" cargo test "${common[@]}" "${runner[@]}" "${targets[@]}" --no-fail-fast "${arguments[@]}" \
        -- "${filters[@]}" <&9 >>"$log" 2>&1 || true
    # A test program contains all of its dependencies, so the programs are large, and are removed.
    cargo clean --quiet --package "$(sed -n '/^\[package\]/,/^name/s/^name = "\(.*\)"/\1/p' "$copy/Cargo.toml")" "${common[@]}" 2>>"$log" || true
    sed -n 's/^test result: .* \([0-9]*\) passed; \([0-9]*\) failed.*/\1 \2/p' "$log" |
        awk '{ passed += $1; failed += $2 } END { print passed + 0, passed + failed }'
)

rows=$scratch/rows
: >"$rows"
worse=()
for name in "${names[@]}"; do
    read -r _ version features skip server < <(awk -v name="$name" '$1 == name' "$list")
    if [[ $server != - ]] && ! command -v "$server" >/dev/null; then
        printf '%-18s left out: install the Debian package %s, which has %s\n' "$name" "${debian_package[$server]}" "$server"
        continue
    fi
    # The file's name contains a checksum of the other columns, of the crate's files in
    # ci/dependents and, if a server is needed, of the files that start and configure servers.
    inputs=(ci/dependents/"$name"_*)
    [[ $server == - ]] || inputs+=(ci/dependents/servers.sh ci/dependents/nginx.conf)
    kept=$target/control-rows/$name-$version-$(
        { printf '%s\n' "$features $skip $server"; cat "${inputs[@]}" 2>/dev/null || true; } | cksum | cut -d' ' -f1
    )
    if [[ ! -e $kept ]]; then
        run control "$name" "$version" "$features" "$skip" "$server" >"$scratch/row"
        # A row of a crate that does not build is not kept, so the next run of the script tries
        # again.
        grep -q '^-' "$scratch/row" || cp "$scratch/row" "$kept"
    else
        cp "$kept" "$scratch/row"
    fi
    read -r control_passed control_all <"$scratch/row"
    read -r passed all < <(run netpoll "$name" "$version" "$features" "$skip" "$server")
    if [[ $passed == - ]]; then
        result='does not build'
        [[ $control_passed == - ]] || worse+=("$name")
    elif [[ $skip == build-only ]]; then
        result=builds
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

# place DOCUMENT: writes the sorted rows between the two marks of a document, where they replace
# earlier rows of the same crates.
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
printf '%d crates, %d worse than on the originals\n' "$(wc -l <"$rows")" "${#worse[@]}"
((${#worse[@]} == 0))
