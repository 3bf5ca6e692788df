#!/usr/bin/env bash
# Three nodes on this machine, durable, with logins spread over all of them.
#
#   tests/bench/cluster.sh [PATH/TO/watchword]     otherwise target/release/watchword
#
# Each node is a process with its own data directory; the generator runs beside them. Every reply is
# verified by the generator; a wrong reply or a refused passcode ends the script.
#
# Environment:
#   IN_FLIGHT="1 32 256"  logins in flight
#   REQUESTS=60000        logins per run; a tenth of it with one in flight
#   USERS=100000
#   KIND=hotp             hotp or totp
#   NODES=3
#   PORTS=28140           the first of nine ports on loopback
#   KEEP=                 not empty: print the directory, leave the nodes running and wait for Enter
set -euo pipefail
here=$(realpath "$(dirname "$0")")
watchword=$(realpath "${1:-$here/../../target/release/watchword}")

in_flights=${IN_FLIGHT:-1 32 256}
requests=${REQUESTS:-60000}
users=${USERS:-100000}
kind=${KIND:-hotp}
nodes=${NODES:-3}
first_port=${PORTS:-28140}

# shellcheck source-path=SCRIPTDIR source=nodes.sh
source "$here/nodes.sh"

start_nodes
add_users
servers=()
for node in $(seq "$nodes"); do servers+=(--server "127.0.0.1:$(radius_port "$node")"); done

if [ -n "${KEEP:-}" ]; then
    echo "$dir ${pids[*]}"
    read -r _
    exit
fi

# Processor time of all nodes so far, in ticks of 10 ms.
ticks() { for pid in "${pids[@]}"; do cat "/proc/$pid/stat"; done | awk '{ all += $14 + $15 } END { print all }'; }

align=
[ "$kind" = hotp ] || align=--align-step
for in_flight in $in_flights; do
    count=$requests
    [ "$in_flight" -gt 1 ] || count=$((requests / 10))
    before=$(ticks)
    # shellcheck disable=SC2086 # nothing or one word
    "$watchword" bench radius "${servers[@]}" --secret-file "$dir/secret" \
        --users-file "$dir/users.csv" --in-flight "$in_flight" --requests "$count" \
        --warm-up 500ms $align --format json > "$dir/run.json"
    # The warm-up counts in, so this is a little too much; what the generator takes is not in it.
    printf '%s nodes, %4s in flight: %8.0f logins/s, p50 %6.0f us, p99 %6.0f us, nodes take %4.0f us of processor per login\n' \
        "$nodes" "$in_flight" "$(field per_second)" "$(field p50)" "$(field p99)" \
        "$(((($(ticks) - before) * 10000) / count))"
done
