#!/usr/bin/env bash
# Watchword and FreeRADIUS side by side: the same users, the same passcodes, the same load generator.
#
#   tests/bench/compare.sh [PATH/TO/watchword]     otherwise target/release/watchword
#
# Each pair of runs takes place within one TOTP time step, one server after the other, which of them
# first alternating; so each user logs in once per run, and both servers see the machine in the same
# mood. Prints medians, and the median of the pairs' ratios. Every reply is verified by the generator; a
# wrong reply or a refused passcode ends the script.
#
# Environment:
#   PAIRS=5              pairs of runs per number in flight
#   IN_FLIGHT="1 32 256" logins in flight
#   REQUESTS=60000       logins per run; a fifth of it with one in flight
#   USERS=100000         must exceed REQUESTS and what the warm-up takes
#   SHAPE=totp-once      what FreeRADIUS does with used passcodes: totp or totp-once (freeradius.sh)
#   SERVERS="freeradius watchword"   one of them alone gives its figures without a ratio
#   FREERADIUS_THREADS=4
#   PORTS=28120          the first of four ports on loopback
set -euo pipefail
if [ $# -gt 1 ]; then
    echo "usage: $0 [PATH/TO/watchword]" >&2
    exit 2
fi
here=$(realpath "$(dirname "$0")")
watchword=$(realpath "${1:-$here/../../target/release/watchword}")
cd "$here"
source ./freeradius.sh
source ./median.sh

pairs=${PAIRS:-5}
in_flights=${IN_FLIGHT:-1 32 256}
requests=${REQUESTS:-60000}
users=${USERS:-100000}
shape=${SHAPE:-totp-once}
servers=${SERVERS:-freeradius watchword}
first_port=${PORTS:-28120}
secret=bench-secret-0123456789

# Watchword reads secrets only from files that nobody else can read.
umask 077
dir=$(mktemp -d)
watchword_pid=
stop_all() {
    freeradius_stop
    if [ -n "$watchword_pid" ]; then
        kill "$watchword_pid" 2> /dev/null || true
        wait "$watchword_pid" 2> /dev/null || true
    fi
    rm -rf "$dir"
}
trap stop_all EXIT

port_of() {
    case $1 in
    freeradius) echo "$first_port" ;;
    watchword) echo $((first_port + 1)) ;;
    esac
}

start_freeradius() {
    freeradius_configure "$dir" "$(port_of freeradius)" "$secret" "$shape"
    "$watchword" bench users --count "$users" --kind totp --format freeradius > "$dir/raddb/users"
    freeradius_start "$dir" "$(port_of freeradius)"
}

# A cluster of one node, with a client whose users have no password: the passcode is all they send.
start_watchword() {
    cat > "$dir/watchword.toml" <<CONF
data_dir = "$dir/node"

[key]
key_file = "$dir/node.key"

[peers]
listen = "127.0.0.1:$((first_port + 3))"

[radius]
listen = ["127.0.0.1:$(port_of watchword)"]

[metrics]
listen = "127.0.0.1:$((first_port + 2))"

[log]
level = "warn"
CONF
    "$watchword" init --config "$dir/watchword.toml" > "$dir/init.log"
    "$watchword" serve --config "$dir/watchword.toml" > "$dir/serve.log" 2>&1 &
    watchword_pid=$!
    until "$watchword" status --config "$dir/watchword.toml" > /dev/null 2>&1; do
        if ! kill -0 "$watchword_pid" 2> /dev/null; then
            echo "watchword did not start:" >&2
            cat "$dir/serve.log" >&2
            return 1
        fi
        sleep 0.1
    done
    "$watchword" user import "$dir/watchword.csv" --config "$dir/watchword.toml" > "$dir/import.log"
    "$watchword" client add radius bench --address 127.0.0.1/32 --secret-file "$dir/secret" \
        --first-factor none --config "$dir/watchword.toml" > "$dir/client.log"
}

# run SERVER IN_FLIGHT COUNT [--align-step]: prints "per_second p50 p99", and keeps them in a file.
run() {
    local server=$1 in_flight=$2 count=$3
    shift 3
    "$watchword" bench radius --server "127.0.0.1:$(port_of "$server")" \
        --secret-file "$dir/secret" --users-file "$dir/$server.csv" --in-flight "$in_flight" \
        --requests "$count" --warm-up 200ms --format json "$@" > "$dir/run.json"
    field() { sed -n "s/.*\"$1\": \([0-9.]*\).*/\1/p" "$dir/run.json"; }
    echo "$(field per_second) $(field p50) $(field p99)" | tee -a "$dir/$server.$in_flight"
}

printf '%s\n' "$secret" > "$dir/secret"
for server in $servers; do
    "$watchword" bench users --count "$users" --kind totp > "$dir/$server.csv"
    "start_$server"
done

for in_flight in $in_flights; do
    count=$requests
    [ "$in_flight" -gt 1 ] || count=$((requests / 5))
    order=$servers
    for pair in $(seq "$pairs"); do
        align=--align-step
        for server in $order; do
            # shellcheck disable=SC2086 # nothing or one word
            result=$(run "$server" "$in_flight" "$count" $align 2> "$dir/run.err") || {
                cat "$dir/run.err" >&2
                exit 1
            }
            echo "pair $pair, $in_flight in flight, $server: $result" >&2
            align=
        done
        order=$(echo "$order" | awk '{ for (i = NF; i > 0; i--) printf "%s ", $i }')
    done
done

printf '%-10s %-12s %12s %10s %10s\n' 'IN FLIGHT' SERVER 'PER SECOND' 'P50 us' 'P99 us'
for in_flight in $in_flights; do
    for server in $servers; do
        file=$dir/$server.$in_flight
        printf '%-10s %-12s %12.0f %10.0f %10.0f\n' "$in_flight" "$server" \
            "$(median 1 "$file")" "$(median 2 "$file")" "$(median 3 "$file")"
    done
    if [ "$servers" = "freeradius watchword" ]; then
        paste "$dir/freeradius.$in_flight" "$dir/watchword.$in_flight" |
            awk '{ print $4 / $1 }' > "$dir/ratios"
        printf '%-10s %-12s %12.2f\n' "$in_flight" ratio "$(median 1 "$dir/ratios")"
    fi
done
