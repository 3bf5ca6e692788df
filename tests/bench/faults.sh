#!/usr/bin/env bash
# Three durable nodes on this machine: how long logins wait when something happens to one of them.
#
#   tests/bench/faults.sh [PATH/TO/watchword]     otherwise target/release/watchword
#
# The generator runs beside the nodes, verifies every reply and sends a request without a reply again
# after 3 s, three times. It has as many logins in flight at each node, and never turns to another. The
# longest gap is the longest time in which no login was accepted at any node. A login has failed
# when no copy of its request was answered, or when it was answered by anything but an accept; if one has, the
# exit status is 1.
#
#   kill    The leader is killed (SIGKILL) and started again after a moment; as often as KILLS says.
#   drain   A rolling restart: each node in turn is drained, stopped, started, and awaited.
#   dead    One node stays dead, no logins: attempts of the others to connect to it, and what CPU they use,
#           before and after. Needs strace, and the right to trace; without, the attempts are not counted.
#   wiped   A node is killed and its data directory emptied; it is replaced as README.md says. Counted from
#           the kill until it is ready and votes. Logins at the two others.
#
# Environment:
#   FAULTS="kill drain dead wiped"
#   KILLS=10
#   ROUNDS=3              rolling restarts, windows without logins, wiped nodes
#   IN_FLIGHT=16          logins in flight
#   USERS=100000
#   KIND=hotp             hotp or totp
#   PORTS=29140           the first of nine ports on loopback
# shellcheck disable=SC2317 # called as fault_…
set -euo pipefail
if [ $# -gt 1 ]; then
    echo "usage: $0 [PATH/TO/watchword]" >&2
    exit 2
fi
here=$(realpath "$(dirname "$0")")
watchword=$(realpath "${1:-$here/../../target/release/watchword}")

faults=${FAULTS:-kill drain dead wiped}
kills=${KILLS:-10}
rounds=${ROUNDS:-3}
in_flight=${IN_FLIGHT:-16}
users=${USERS:-100000}
kind=${KIND:-hotp}
first_port=${PORTS:-29140}
nodes=3
# As nodes have it that nobody has tuned.
promote_after=2s

# Seconds of load before something happens, and after: longer than a request waits to be sent again.
before=2
after=4
# Seconds for which a killed node is away. One that is back at once would take part in the election.
away=2
# Seconds of a window without logins, and what comes before it.
window=10
calm=5

# shellcheck source-path=SCRIPTDIR source=nodes.sh
source "$here/nodes.sh"

gaps=()
times=()
logins=0
failed=0
has_failed=0
load=
# The generator is no node, but is to end with them.
pids[0]=

# load NODE…: logins at these nodes until load_end
load() {
    local servers=() node
    for node in "$@"; do servers+=(--server "127.0.0.1:$(radius_port "$node")"); done
    "$watchword" bench radius "${servers[@]}" --secret-file "$dir/secret" \
        --users-file "$dir/users.csv" --in-flight "$in_flight" --seconds 3600 --warm-up 500ms \
        --timeout 3s --retries 3 --format json > "$dir/run.json" 2> "$dir/run.log" &
    load=$!
    pids[0]=$load
    sleep "$before"
}

# Ends the load. What is still in flight then was sent while all of its nodes were ready.
load_end() {
    local name count
    sleep "$after"
    kill -TERM "$load" 2> /dev/null || { cat "$dir/run.log" >&2; exit 1; }
    wait "$load" || cat "$dir/run.log" >&2
    pids[0]=
    [ -n "$(field longest_gap_ms)" ] || { echo "the generator reports no longest_gap_ms" >&2; exit 1; }
    gaps+=("$(field longest_gap_ms)")
    logins=$((logins + $(field logins)))
    for name in timeouts rejects challenges wrong_replies; do
        count=$(field "$name")
        failed=$((failed + count))
    done
}

# Ends node NODE by SIGNAL.
end() {
    kill "-$2" "${pids[$1]}"
    wait "${pids[$1]}" 2> /dev/null || true
    pids[$1]=
}

# The node that leads. Its id may be another number: nodes 2 and 3 join at the same time.
leader() {
    local node
    while :; do
        for node in $(seq "$nodes"); do
            if [[ $(status "$node") == *'"role":"leader"'* ]]; then
                echo "$node"
                return
            fi
        done
        sleep 0.1
    done
}

now() { date +%s.%N; }
since() { echo "$1 $(now)" | awk '{ printf "%.2f\n", $2 - $1 }'; }

# median FORMAT FIGURE…: the median, and all figures in the order in which they came
median() {
    local format=$1; shift
    printf '%s\n' "$@" | sort -n | awk -v format="$format" -v all="$*" '
        { sorted[NR] = $1 }
        END {
            printf format, (sorted[int((NR + 1) / 2)] + sorted[int(NR / 2) + 1]) / 2
            count = split(all, figures, " ")
            for (i = 1; i <= count; i++) printf (i == 1 ? " (" : ", ") format, figures[i]
            if (count) printf ")"
        }'
}

# Prints what a fault came to under load: the line begins with $1.
report() {
    local part
    part="$1: longest gap $(median %.0f "${gaps[@]}") ms"
    [ "${#times[@]}" = 0 ] || part+=", took $(median %.1f "${times[@]}") s"
    echo "$part, $failed of $logins logins failed"
    [ "$failed" = 0 ] || has_failed=1
    gaps=() times=() logins=0 failed=0
}

fault_kill() {
    local victim
    for _ in $(seq "$kills"); do
        load 1 2 3
        victim=$(leader)
        end "$victim" KILL
        sleep "$away"
        serve "$victim"
        until_ready "$victim" 3
        load_end
    done
    report "leader killed"
}

fault_drain() {
    local node since
    for _ in $(seq "$rounds"); do
        load 1 2 3
        since=$(now)
        for node in 1 2 3; do
            # It says so itself when nobody took over; stopping the node hands over as well.
            on "$node" drain > "$dir/drain.log" || true
            end "$node" TERM
            serve "$node"
            until_ready "$node" 3
        done
        times+=("$(since "$since")")
        load_end
    done
    report "rolling restart"
}

# Clock ticks of CPU that node NODE has used.
ticks() { sed 's/.*) //' "/proc/${pids[$1]}/stat" | awk '{ print $12 + $13 }'; }

# idle WHEN NODE…: what these nodes do without logins
idle() {
    local when=$1 node attempts used=() tick trace=() port; shift
    tick=$(getconf CLK_TCK)
    port=$(peer_port 3)
    sleep "$calm"
    for _ in $(seq "$rounds"); do
        local begun=()
        for node in "$@"; do begun[node]=$(ticks "$node"); done
        sleep "$window"
        for node in "$@"; do
            used+=("$(echo "$(($(ticks "$node") - begun[node])) $tick $window" |
                awk '{ print $1 * 100 / $2 / $3 }')")
        done
    done
    echo "$when: each of nodes $* uses $(median %.1f "${used[@]}") % of a core"
    # Afterwards, because tracing takes CPU.
    for node in "$@"; do trace+=(-p "${pids[$node]}"); done
    timeout "$window" strace -f -qq -e trace=connect -o "$dir/trace" "${trace[@]}" 2> "$dir/trace.log" ||
        [ $? = 124 ] || { echo "$when: attempts to connect were not counted"; return 0; }
    attempts=$(grep -c "connect(.*htons($port)" "$dir/trace" || true)
    echo "$when: nodes $* try to connect to node 3 $(echo "$attempts $window" |
        awk '{ printf "%.1f", $1 / $2 }') times a second"
}

fault_dead() {
    idle "all alive" 1 2
    end 3 KILL
    idle "node 3 dead" 1 2
    serve 3
    until_ready 3 3
}

# Whether node NODE is ready, and the others know that it votes: its id is another than before.
votes() {
    local said id
    said=$(status "$1")
    id=$(echo "$said" | sed -n 's/.*"node":\([0-9]*\),.*/\1/p')
    [ -n "$id" ] && [[ $said == *'"ready":true'* ]] &&
        status 1 | grep -Eq "\"voters\":\[([0-9]+,)*$id(,[0-9]+)*\]"
}

fault_wiped() {
    local since id line
    for _ in $(seq "$rounds"); do
        load 1 2
        id=$(status 3 | sed -n 's/.*"node":\([0-9]*\),.*/\1/p')
        since=$(now)
        end 3 KILL
        rm -rf "$dir/3/data"
        on 1 replace "$id" --yes > "$dir/replace.log"
        # watchword join ADDRESS --token TOKEN --config FILE
        line=$(grep 'watchword join' "$dir/replace.log")
        # shellcheck disable=SC2086 # words
        set -- $line
        join 3 "$3" "$5"
        until votes 3; do
            kill -0 "${pids[3]}" || { cat "$dir/3/serve.log" >&2; exit 1; }
            sleep 0.1
        done
        times+=("$(since "$since")")
        load_end
    done
    report "wiped node"
}

start_nodes
add_users
for fault in $faults; do "fault_$fault"; done
exit "$has_failed"
