# Sourced by compare.sh: a FreeRADIUS of its own, in a directory of its own.
#
#   freeradius_configure DIR PORT SECRET SHAPE    writes DIR/raddb; the users file goes to DIR/raddb/users
#   freeradius_start DIR PORT                     starts it and waits until it answers
#   freeradius_stop                               stops what freeradius_start started
#
# The server is the leanest that does the job: one virtual server, only the modules it uses, no logging
# of logins, no delay of rejects. Shapes:
#
#   totp       rlm_totp alone. In Debian's 3.2.1 it keeps no record of used passcodes, so that one is
#              accepted as often as it comes within its 30 seconds.
#   totp-once  rlm_totp, then rlm_cache (red-black tree in process memory) to refuse a passcode that was
#              accepted before: the nearest to what Watchword does. It holds for one process only, is
#              lost when that ends, and two copies at the same moment can both pass, since looking up
#              and inserting are two steps.
#
# Replies carry a Message-Authenticator, as Watchword's always do.

freeradius_configure() {
    local dir=$1 port=$2 secret=$3 shape=$4 once=
    mkdir -p "$dir/raddb"
    case $shape in
    totp) ;;
    totp-once)
        # rlm_cache says `ok` for an entry that was there and `updated` for a new one.
        once='
            used_passcode {
                ok = reject
                updated = 1
            }
            ok'
        ;;
    *)
        echo "unknown shape $shape" >&2
        return 2
        ;;
    esac
    cat > "$dir/raddb/radiusd.conf" <<CONF
prefix = /usr
libdir = /usr/lib/freeradius
name = bench
logdir = $dir
run_dir = $dir
raddbdir = $dir/raddb
pidfile = $dir/radiusd.pid
max_request_time = 30
# One identifier of one port is one request, so this bounds nothing but memory.
cleanup_delay = 2
max_requests = 65536
hostname_lookups = no
proxy_requests = no
log {
    destination = stdout
    auth = no
}
security {
    max_attributes = 200
    reject_delay = 0
    status_server = no
}
thread pool {
    start_servers = ${FREERADIUS_THREADS:-4}
    max_servers = ${FREERADIUS_THREADS:-4}
    min_spare_servers = 1
    max_spare_servers = ${FREERADIUS_THREADS:-4}
    max_requests_per_server = 0
    max_queue_size = 65536
}
client bench {
    ipaddr = 127.0.0.1
    secret = $secret
}
modules {
    files {
        usersfile = $dir/raddb/users
    }
    totp {
    }
    expr {
    }
    always ok {
        rcode = ok
    }
    cache used_passcode {
        driver = "rlm_cache_rbtree"
        # The step and not the passcode, of which one in a million is the same in the next step; %l is
        # when the request arrived, and rlm_totp accepts the current step only.
        key = "%{User-Name} %{expr:%l / 30}"
        ttl = 60
        max_entries = 0
        add_stats = no
        update {
            &control:Tmp-Integer-0 := 1
        }
    }
}
instantiate {
}
server bench {
    listen {
        type = auth
        ipaddr = 127.0.0.1
        port = $port
        # The most that Linux grants, so that a burst of 256 does not overflow it.
        recv_buff = $(cat /proc/sys/net/core/rmem_max)
    }
    authorize {
        files
        update request {
            &TOTP-Password := "%{User-Password}"
        }
        update control {
            &Auth-Type := totp
        }
    }
    authenticate {
        Auth-Type totp {
            totp {
                ok = 1
            }$once
        }
    }
    post-auth {
        update reply {
            &Message-Authenticator := 0x00
        }
        Post-Auth-Type REJECT {
            update reply {
                &Message-Authenticator := 0x00
            }
        }
    }
}
CONF
}

freeradius_start() {
    local dir=$1 port=$2
    : > "$dir/freeradius.log"
    freeradius -f -l stdout -d "$dir/raddb" > "$dir/freeradius.log" 2>&1 &
    FREERADIUS_PID=$!
    # It says so when it is ready, or ends; both end the file's growth.
    until grep -q 'Ready to process requests' "$dir/freeradius.log"; do
        if ! kill -0 "$FREERADIUS_PID" 2> /dev/null; then
            echo "freeradius did not start:" >&2
            grep -v Info: "$dir/freeradius.log" >&2
            return 1
        fi
        sleep 0.1
    done
}

freeradius_stop() {
    [ -n "${FREERADIUS_PID:-}" ] || return 0
    kill "$FREERADIUS_PID" 2> /dev/null || true
    wait "$FREERADIUS_PID" 2> /dev/null || true
    FREERADIUS_PID=
}
