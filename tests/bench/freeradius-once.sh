#!/usr/bin/env bash
# What FreeRADIUS + rlm_totp does with a passcode that was used before, asked with foreign tools only
# (oathtool makes the passcode, radclient sends it).
#
#   tests/bench/freeradius-once.sh [PORT]
set -euo pipefail
cd "$(dirname "$0")"
source ./freeradius.sh

port=${1:-28120}
key=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ
dir=$(mktemp -d)
trap 'freeradius_stop; rm -rf "$dir"' EXIT

ask() {
    printf 'User-Name = jo, User-Password = %s\n' "$1" |
        radclient -x -r 1 "127.0.0.1:$port" auth testing123 2>&1 |
        sed -n 's/^Received \(Access-[A-Za-z]*\).*/\1/p'
}

for shape in totp totp-once; do
    freeradius_configure "$dir" "$port" testing123 "$shape"
    echo "jo TOTP-Secret := \"$key\"" > "$dir/raddb/users"
    freeradius_start "$dir" "$port"
    # Not at the end of a step, where the second use would be refused for being late.
    while (( $(date +%s) % 30 > 25 )); do sleep 0.5; done
    passcode=$(oathtool --totp --base32 "$key")
    echo "$shape: first use $(ask "$passcode"), second use $(ask "$passcode")," \
        "one step old $(ask "$(oathtool --totp --base32 --now '30 seconds ago' "$key")")," \
        "wrong $(ask 000000)"
    freeradius_stop
done
