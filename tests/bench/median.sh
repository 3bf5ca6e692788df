# The median of figures, for the scripts beside it: compare.sh and etcd.sh source it.
# shellcheck shell=bash

# median COLUMN FILE
median() {
    awk -v column="$1" '{ print $column }' "$2" | sort -g |
        awk '{ value[NR] = $1 } END { print (value[int((NR + 1) / 2)] + value[int(NR / 2) + 1]) / 2 }'
}
