#!/usr/bin/env bash
# What three nodes spend their processor time on while they decide logins.
#
#   tests/bench/profile.sh [PATH/TO/watchword]     otherwise target/release/watchword
#
# Needs perf, and the right to use it. Each sample counts for the first line of the table below that a
# function on its stack belongs to, so that, say, copying memory while an entry is applied is `apply`.
#
# Environment:
#   IN_FLIGHT=256         logins in flight
#   REQUESTS=150000
#   SECONDS_SAMPLED=4
#   USERS=100000, KIND=hotp, NODES=3, PORTS=28440 as for cluster.sh
set -euo pipefail
here=$(realpath "$(dirname "$0")")
watchword=$(realpath "${1:-$here/../../target/release/watchword}")

in_flight=${IN_FLIGHT:-256}
requests=${REQUESTS:-150000}
seconds=${SECONDS_SAMPLED:-4}
# shellcheck disable=SC2034 # nodes.sh reads them
users=${USERS:-100000} kind=${KIND:-hotp} nodes=${NODES:-3} first_port=${PORTS:-28440}

# shellcheck source-path=SCRIPTDIR source=nodes.sh
source "$here/nodes.sh"

start_nodes
add_users
servers=()
for node in $(seq "$nodes"); do servers+=(--server "127.0.0.1:$(radius_port "$node")"); done

"$watchword" bench radius "${servers[@]}" --secret-file "$dir/secret" --users-file "$dir/users.csv" \
    --in-flight "$in_flight" --requests "$requests" --warm-up 500ms --format json > "$dir/run.json" &
load=$!
# Past the warm-up.
sleep 1
of=$(IFS=,; echo "${pids[*]}")
perf record --quiet --call-graph dwarf,8192 -F 399 -o "$dir/perf.data" -p "$of" -- sleep "$seconds"
wait "$load"

perf script --no-inline -i "$dir/perf.data" -F comm,ip,sym 2> /dev/null | awk '
    BEGIN {
        # Name, then what a frame of it is called.
        n = split("apply=core::state::State::apply|command::attempt::conclude|state_machine::" \
            ";examination=watchword::auth::" \
            ";fdatasync=fdatasync|ext4_sync_file" \
            ";sled=^sled-io|sled::|ext4_|pwrite" \
            ";store thread=^watchword-store" \
            ";TLS=rustls|ring_core|aws_lc" \
            ";tonic=h2::|hyper|tonic|tcp_sendmsg|tcp_recvmsg|watchword_cluster::network" \
            ";Raft=openraft|watchword_cluster" \
            ";RADIUS=watchword::radius|udp_sendmsg|udp_recvmsg|__sys_sendto|__sys_recvfrom", rule, ";")
        for (i = 1; i <= n; i++) { split(rule[i], part, "="); name[i] = part[1]; pattern[i] = part[2] }
    }
    function count() {
        if (stack == "") return
        for (i = 1; i <= n && stack !~ pattern[i]; i++) { }
        samples[i <= n ? name[i] : "tokio, waiting and waking, other"]++
        all++
        stack = ""
    }
    /^$/ { count(); next }
    { if ($0 ~ /^[^ \t]/) stack = $1; else stack = stack "\n" $0 }
    END {
        count()
        for (what in samples) printf "%5.1f %%  %s\n", 100 * samples[what] / all, what
    }' | sort -rn
