# Nodes on this machine, for the scripts beside it: cluster.sh and faults.sh source it.
#
# Each node is a process with its own data directory "$dir/NODE", as durable as any. It listens on
# three ports of loopback, one after the other: RADIUS, metrics, peers.
#
# The script sets: watchword, nodes, first_port, users, kind; and perhaps promote_after.
# shellcheck shell=bash
# shellcheck disable=SC2154 # the script sets them

umask 077
dir=$(mktemp -d)
# The process of each node, by its number.
pids=()
stop_all() {
    for pid in "${pids[@]}"; do kill "$pid" 2> /dev/null || true; done
    for pid in "${pids[@]}"; do wait "$pid" 2> /dev/null || true; done
    rm -rf "$dir"
}
trap stop_all EXIT

radius_port() { echo $((first_port + 3 * ($1 - 1))); }
peer_port() { echo $((first_port + 3 * ($1 - 1) + 2)); }

configure() {
    local node=$1 base
    base=$(radius_port "$1")
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
promote_after = "${promote_after:-100ms}"

[log]
level = "warn"
CONF
}

on() { local node=$1; shift; "$watchword" "$@" --config "$dir/$node/watchword.toml"; }

# In the background, and not through `on`, so that its process id is the node's.
run() {
    local node=$1; shift
    "$watchword" "$@" --config "$dir/$node/watchword.toml" >> "$dir/$node/serve.log" 2>&1 &
    pids[node]=$!
}
serve() { run "$1" serve; }
# join NODE ADDRESS TOKEN
join() { run "$1" join "$2" --token "$3"; }

# The node's status on one line without spaces; nothing while it does not answer.
status() { on "$1" status --format json 2> /dev/null | tr -d ' \n'; }

# until_ready NODE VOTERS
until_ready() {
    until status "$1" | grep -Eq "\"voters\":\[([0-9]+,?){$2}\].*\"ready\":true"; do
        kill -0 "${pids[$1]}" || { cat "$dir/$1/serve.log" >&2; exit 1; }
        sleep 0.1
    done
}

start_nodes() {
    local node token=
    for node in $(seq "$nodes"); do
        configure "$node"
        if [ "$node" = 1 ]; then
            on 1 init > "$dir/init.log"
            serve 1
            until_ready 1 1
            [ "$nodes" = 1 ] || token=$(on 1 token create --uses "$((nodes - 1))" | head -n 1)
        else
            join "$node" "127.0.0.1:$(peer_port 1)" "$token"
        fi
    done
    until_ready 1 "$nodes"
}

# Users in "$dir/users.csv", and a client that sends passcodes alone, its secret in "$dir/secret".
add_users() {
    printf 'bench-secret-0123456789\n' > "$dir/secret"
    "$watchword" bench users --count "$users" --kind "$kind" > "$dir/users.csv"
    on 1 user import "$dir/users.csv" > "$dir/import.log" 2>&1
    on 1 client add radius bench --address 127.0.0.1/32 --secret-file "$dir/secret" \
        --first-factor none > "$dir/client.log"
}

# Of the generator's latest report.
field() { sed -n "s/.*\"$1\": \([0-9.]*\).*/\1/p" "$dir/run.json" | head -n 1; }
