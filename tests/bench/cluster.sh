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

umask 077
dir=$(mktemp -d)
pids=()
stop_all() {
    for pid in "${pids[@]}"; do kill "$pid" 2> /dev/null || true; done
    for pid in "${pids[@]}"; do wait "$pid" 2> /dev/null || true; done
    rm -rf "$dir"
}
trap stop_all EXIT

configure() {
    local node=$1 base=$((first_port + 3 * ($1 - 1)))
    mkdir "$dir/$node"
    cat > "$dir/$node/watchword.toml" <<CONF
data_dir = "data"

[key]
key_file = "data.key"

[peers]
listen = "127.0.0.1:$((base + 2))"

[radius]
listen = ["127.0.0.1:$base"]

[metrics]
listen = "127.0.0.1:$((base + 1))"

[raft]
promote_after = "100ms"

[log]
level = "warn"
CONF
}

on() { local node=$1; shift; "$watchword" "$@" --config "$dir/$node/watchword.toml"; }

# until_ready NODE VOTERS
until_ready() {
    until on "$1" status --format json 2> /dev/null | tr -d ' \n' |
        grep -Eq "\"voters\":\[([0-9]+,?){$2}\].*\"ready\":true"; do
        sleep 0.1
    done
}

servers=()
for node in $(seq "$nodes"); do
    configure "$node"
    servers+=(--server "127.0.0.1:$((first_port + 3 * (node - 1)))")
    if [ "$node" = 1 ]; then
        on 1 init > "$dir/init.log"
        # Not through `on`, so that its process id is the node's.
        "$watchword" serve --config "$dir/1/watchword.toml" > "$dir/1/serve.log" 2>&1 &
        pids+=($!)
        until_ready 1 1
        token=
        [ "$nodes" = 1 ] || token=$(on 1 token create --uses "$((nodes - 1))" | head -n 1)
    else
        "$watchword" join "127.0.0.1:$((first_port + 2))" --token "$token" \
            --config "$dir/$node/watchword.toml" > "$dir/$node/serve.log" 2>&1 &
        pids+=($!)
    fi
done
until_ready 1 "$nodes"

printf 'bench-secret-0123456789\n' > "$dir/secret"
"$watchword" bench users --count "$users" --kind "$kind" > "$dir/users.csv"
on 1 user import "$dir/users.csv" > "$dir/import.log" 2>&1
on 1 client add radius bench --address 127.0.0.1/32 --secret-file "$dir/secret" \
    --first-factor none > "$dir/client.log"

if [ -n "${KEEP:-}" ]; then
    echo "$dir ${pids[*]}"
    read -r _
    exit
fi

align=
[ "$kind" = hotp ] || align=--align-step
for in_flight in $in_flights; do
    count=$requests
    [ "$in_flight" -gt 1 ] || count=$((requests / 10))
    # shellcheck disable=SC2086 # nothing or one word
    "$watchword" bench radius "${servers[@]}" --secret-file "$dir/secret" \
        --users-file "$dir/users.csv" --in-flight "$in_flight" --requests "$count" \
        --warm-up 500ms $align --format json > "$dir/run.json"
    field() { sed -n "s/.*\"$1\": \([0-9.]*\).*/\1/p" "$dir/run.json" | head -n 1; }
    printf '%s nodes, %4s in flight: %8.0f logins/s, p50 %6.0f us, p99 %6.0f us\n' \
        "$nodes" "$in_flight" "$(field per_second)" "$(field p50)" "$(field p99)"
done
