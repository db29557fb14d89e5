#!/usr/bin/env bash
# Server CPU a request of hyper on netpoll, tokio and smol: alternating rounds of wrk with keep-alive connections, server and wrk on the
# last CPU under SCHED_BATCH, so that both see whole batches. Prints the medians and what they are to tokio's. Needs wrk.
#   ./http.sh [ROUNDS] [CONNECTIONS] [BYTES] [timer]
set -euo pipefail
cd "$(dirname "$0")"
readonly rounds=${1:-7} connections=${2:-64} bytes=${3:-13} timer=${4:-none}
readonly names=(netpoll netpoll-server tokio tokio-local smol)
readonly cpu=$(($(nproc) - 1))

cargo build --quiet --release --features http --bin http
figures=$(mktemp -d)
server=
trap 'kill "$server" 2>/dev/null || true; rm -r "$figures"' EXIT

# CPU of all threads of the server in nanoseconds.
used() {
    cat "/proc/$server/task/"*/schedstat | awk '{ sum += $1 } END { printf "%d", sum }'
}

for ((round = 0; round < rounds; round++)); do
    for name in "${names[@]}"; do
        : >"$figures/ready"
        chrt -b 0 taskset -c "$cpu" "${CARGO_TARGET_DIR:-target}/release/http" "$name" "$bytes" "$timer" >>"$figures/ready" &
        server=$!
        until grep -q ready "$figures/ready"; do sleep 0.01; done
        url=http://127.0.0.1:$(sed 's/ready //' "$figures/ready")/
        wrk=(chrt -b 0 taskset -c "$cpu" wrk -t1 -c"$connections" "$url")
        "${wrk[@]}" -d1 >"$figures/warm"
        before=$(used)
        requests=$("${wrk[@]}" -d3 | awk '/requests in/ { print $1 }')
        after=$(used)
        echo $(((after - before) / requests)) >>"$figures/$name"
        kill "$server"
        wait "$server" 2>/dev/null || true
    done
done

median() {
    sort -n "$figures/$1" | awk '{ value[NR] = $1 } END { print value[int((NR + 1) / 2)] }'
}
tokio=$(median tokio)
printf '%d connections, %d bytes, timer: %s, %d rounds\n' "$connections" "$bytes" "$timer" "$rounds"
for name in "${names[@]}"; do
    awk -v name="$name" -v own="$(median "$name")" -v tokio="$tokio" \
        'BEGIN { printf "%-16s %7d ns a request  %.2f of tokio\n", name, own, own / tokio }'
done
