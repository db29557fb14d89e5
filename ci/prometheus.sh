#!/usr/bin/env bash
# Checks the metrics of netpoll-hyper's example `metrics` with Prometheus: promtool checks their
# text, and a server scrapes them and answers queries about them. Needs Debian's packages
# `prometheus` and `curl`. Without them, the script says so and exits with status 0.
#
# usage: ci/prometheus.sh
#
# Builds in CARGO_TARGET_DIR (default: target).
set -euo pipefail
cd "$(dirname "$0")/.."
for tool in prometheus promtool curl; do
    command -v "$tool" >/dev/null || {
        echo "ci/prometheus.sh: skipped: $tool is not installed (Debian: apt-get install prometheus curl)"
        exit 0
    }
done

cargo build -p netpoll-hyper --example metrics
folder=$(mktemp -d)
pids=()
# finish: ends the servers and removes the files.
finish() {
    for pid in "${pids[@]}"; do
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    rm -rf "$folder"
}
trap finish EXIT

# until_true SECONDS COMMAND...: repeats the command until it succeeds. After SECONDS, prints the
# logs and exits with status 1.
until_true() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        if ((SECONDS >= end)); then
            echo "ci/prometheus.sh: timed out: $*" >&2
            cat "$folder"/*.log >&2
            exit 1
        fi
        sleep 0.2
    done
}

"${CARGO_TARGET_DIR:-target}/debug/examples/metrics" 127.0.0.1:0 >"$folder/metrics.log" 2>&1 &
pids+=($!)
until_true 30 grep -q "^echo on " "$folder/metrics.log"
address=$(sed -n 's/^listening on //p' "$folder/metrics.log")
echo_port=$(sed -n 's/^echo on .*://p' "$folder/metrics.log")

# Exchanges messages over so many connections that the length of the accept queue is sampled.
for _ in $(seq 300); do
    exec 4<>"/dev/tcp/127.0.0.1/$echo_port"
    echo hello >&4
    read -r line <&4
    [[ $line == hello ]]
    exec 4>&-
done

header=$(curl -sS -D - -o "$folder/openmetrics" "http://$address/metrics")
grep -qi '^content-type: application/openmetrics-text; version=1.0.0' <<<"$header"
[[ $(tail -n 1 "$folder/openmetrics") == "# EOF" ]]

# promtool reads Prometheus' older format. There, the type of a counter is declared under its full
# name, and units do not exist.
sed -E -e '/^# (UNIT|EOF)/d' -e '/^# TYPE [a-z_]+ counter$/s/ counter$/_total counter/' "$folder/openmetrics" |
    awk '/^# HELP/ { help = $0; next } /^# TYPE/ { split(help, words, " "); sub(words[3] " ", $3 " ", help); print help } { print }' |
    tee "$folder/text" | promtool check metrics
echo "promtool check metrics: $(grep -c '^# TYPE' "$folder/text") metrics"

cat >"$folder/prometheus.yml" <<YAML
global:
  scrape_interval: 1s
scrape_configs:
  - job_name: netpoll
    static_configs:
      - targets: ["$address"]
YAML
promtool check config "$folder/prometheus.yml"
# Tries three random ports, because another program may use one.
port=
for try in $((20000 + RANDOM % 10000)) $((20000 + RANDOM % 10000)) $((20000 + RANDOM % 10000)); do
    prometheus --config.file="$folder/prometheus.yml" --storage.tsdb.path="$folder/data" \
        --web.listen-address="127.0.0.1:$try" >"$folder/prometheus.log" 2>&1 &
    server=$!
    ready() { ! kill -0 "$server" 2>/dev/null || curl -fsS -o "$folder/ready" "http://127.0.0.1:$try/-/ready" 2>/dev/null; }
    until_true 60 ready
    if kill -0 "$server" 2>/dev/null; then
        pids+=("$server")
        port=$try
        break
    fi
done
[[ -n $port ]] || {
    cat "$folder/prometheus.log" >&2
    exit 1
}

# query EXPRESSION: succeeds if the server has a positive value for the expression.
query() {
    promtool query instant "http://127.0.0.1:$port" "$1" | tee "$folder/answer" | grep -Eq '=> [0-9.]*[1-9]'
}
for expression in 'up{job="netpoll"} == 1' 'netpoll_polls_total' 'netpoll_workers' 'netpoll_poll_seconds_count' \
    'histogram_quantile(0.9, netpoll_poll_seconds_bucket)' 'netpoll_listener_accept_queue_max' 'rate(netpoll_polls_total[10s])'; do
    until_true 60 query "$expression"
    sed 's/^/prometheus: /' "$folder/answer"
done
types=$(curl -fsS "http://127.0.0.1:$port/api/v1/metadata?metric=netpoll_poll_seconds")
grep -q '"type":"histogram"' <<<"$types" && grep -q '"unit":"seconds"' <<<"$types"
echo "ci/prometheus.sh: passed"
