#!/usr/bin/env bash
# Watchword and etcd side by side, three nodes of each on this machine: logins against puts.
#
#   tests/bench/etcd.sh [PATH/TO/watchword]     otherwise target/release/watchword
#
# Both clusters run all the time, and load is put on one after the other, which of them first
# alternating, so that both see the machine in the same mood. A login is a RADIUS request that is
# examined, decided through the replicated log and answered, over mutual TLS between the nodes; a put is
# 200 bytes through etcd's replicated log, without TLS. Both wait for the disk. Prints medians, and the
# median of the pairs' ratios.
#
# Needs Debian's etcd-server.
#
# Environment:
#   PAIRS=5
#   IN_FLIGHT="1 16 64 256"
#   REQUESTS=40000        per run; a tenth of it with one in flight
#   USERS=100000
#   PORTS=28440           the first of sixteen ports on loopback
set -euo pipefail
if [ $# -gt 1 ]; then
    echo "usage: $0 [PATH/TO/watchword]" >&2
    exit 2
fi
here=$(realpath "$(dirname "$0")")
watchword=$(realpath "${1:-$here/../../target/release/watchword}")

pairs=${PAIRS:-5}
in_flights=${IN_FLIGHT:-1 16 64 256}
requests=${REQUESTS:-40000}
users=${USERS:-100000}
kind=hotp
nodes=3
first_port=${PORTS:-28440}

command -v etcd > /dev/null || { echo "etcd is missing; apt-get install etcd-server" >&2; exit 1; }
target=${CARGO_TARGET_DIR:-$here/../../target}
(cd "$here/../.." && cargo build --quiet --release --example etcd_put)
etcd_put=$target/release/examples/etcd_put

# shellcheck source-path=SCRIPTDIR source=nodes.sh
source "$here/nodes.sh"
# shellcheck source-path=SCRIPTDIR source=median.sh
source "$here/median.sh"

client_port() { echo $((first_port + 9 + 2 * $1)); }

start_etcd() {
    local member peers=
    for member in 1 2 3; do
        peers+=${peers:+,}member$member=http://127.0.0.1:$(($(client_port "$member") + 1))
    done
    for member in 1 2 3; do
        local client=http://127.0.0.1:$(client_port "$member")
        local peer=http://127.0.0.1:$(($(client_port "$member") + 1))
        etcd --name "member$member" --data-dir "$dir/etcd$member" \
            --listen-client-urls "$client" --advertise-client-urls "$client" \
            --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" \
            --initial-cluster "$peers" --initial-cluster-state new \
            --quota-backend-bytes 8589934592 > "$dir/etcd$member.log" 2>&1 &
        pids+=($!)
    done
    until "$etcd_put" 1 1 "127.0.0.1:$(client_port 1)" > "$dir/first.json" 2>&1; do sleep 0.2; done
}

run_etcd() {
    "$etcd_put" "$1" "$2" "127.0.0.1:$(client_port 1)" "127.0.0.1:$(client_port 2)" \
        "127.0.0.1:$(client_port 3)" > "$dir/run.json"
}

run_watchword() {
    "$watchword" bench radius --server "127.0.0.1:$(radius_port 1)" \
        --server "127.0.0.1:$(radius_port 2)" --server "127.0.0.1:$(radius_port 3)" \
        --secret-file "$dir/secret" --users-file "$dir/users.csv" --in-flight "$1" \
        --requests "$2" --warm-up 200ms --format json > "$dir/run.json"
}

start_nodes
add_users
start_etcd
printf '%-10s %-10s %12s %10s %10s\n' 'IN FLIGHT' SERVER 'PER SECOND' 'P50 us' 'P99 us'
for in_flight in $in_flights; do
    count=$requests
    [ "$in_flight" -gt 1 ] || count=$((requests / 10))
    order="etcd watchword"
    for pair in $(seq "$pairs"); do
        for server in $order; do
            "run_$server" "$in_flight" "$count"
            result="$(field per_second) $(field p50) $(field p99)"
            echo "$result" >> "$dir/$server.$in_flight"
            echo "pair $pair, $in_flight in flight, $server: $result" >&2
        done
        order=$(echo "$order" | awk '{ print $2, $1 }')
    done
    for server in etcd watchword; do
        file=$dir/$server.$in_flight
        printf '%-10s %-10s %12.0f %10.0f %10.0f\n' "$in_flight" "$server" \
            "$(median 1 "$file")" "$(median 2 "$file")" "$(median 3 "$file")"
    done
    paste "$dir/etcd.$in_flight" "$dir/watchword.$in_flight" | awk '{ print $4 / $1 }' > "$dir/ratios"
    printf '%-10s %-10s %12.2f\n' "$in_flight" ratio "$(median 1 "$dir/ratios")"
done
