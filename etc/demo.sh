#!/bin/sh
# What `make run` does once fived is built. From the top of the checkout:
#
#   etc/demo.sh conf DIRECTORY    writes DIRECTORY/demo.conf: etc/demo.conf, fit for this place and this user
#   etc/demo.sh run PROGRAM       the same into target/, then PROGRAM in the foreground: on port 1 if that is allowed,
#                                 else on the first free one of 1001 to 1010; on the loopback alone
#
# LISTEN=ADDRESS:PORT listens there instead (LISTEN='[::]:1': for everybody; mind that the demo's password is known).
set -eu
here=$(pwd)

conf() {
    user=$(id -un)
    [ "$(id -u)" != 0 ] || user=nobody
    mkdir -p "$1"
    # State beside the configuration; what is in etc/ stays there.
    state=$(cd "$1" && pwd)/demo-state
    mkdir -p -m 700 "$state"
    sed -e "s|= etc/demo.passwd|= \"$here/etc/demo.passwd\"|" \
        -e "s|= target/demo-state|= \"$state\"|" \
        -e "s|^\([a-z]* *stream *tcp *nowait *\)nobody |\1$user |" etc/demo.conf >"$1/demo.conf"
}

# Does anybody listen on that port? (the kernel's tables have it in hexadecimal; 0A is LISTEN)
taken() {
    cat /proc/net/tcp /proc/net/tcp6 2>/dev/null |
        awk -v port="$(printf ':%04X' "$1")" '$4 == "0A" && substr($2, length($2) - 4) == port { found = 1 } END { exit !found }'
}

# May this user bind port 1?
low() {
    [ "$(id -u)" = 0 ] || [ "$(cat /proc/sys/net/ipv4/ip_unprivileged_port_start 2>/dev/null || echo 1024)" -le 1 ]
}

hints() {
    cat <<END

fived serves port $1. In another terminal, type:

    printf 'HELP\r\n' | nc -N localhost $1                what is here?
    printf 'date\r\n' | nc -N localhost $1                a service, by its name
    nc -C localhost $1                                    then type HOST, main, motd; or AUTH, demo, demopass, facts
    openssl s_client -quiet -crlf -connect localhost:$1   TLS: then HELP, date, ...

README.md has the rest of the five minutes. Control-C ends it.

END
}

serve() {
    program=$1 port=$2
    shift 2
    hints "$port"
    exec "$program" -f target/demo.conf "$@"
}

run() {
    conf target
    if [ -n "${LISTEN:-}" ]; then
        serve "$1" "${LISTEN##*:}" -l "$LISTEN"
    fi
    ports="1001 1002 1003 1004 1005 1006 1007 1008 1009 1010"
    ! low || ports="1 $ports"
    for port in $ports; do
        taken "$port" && continue
        set -- "$1" "$port" -l "127.0.0.1:$port"
        # A computer without IPv6 has no ::1.
        ! grep -q '^0\{31\}1 ' /proc/net/if_inet6 2>/dev/null || set -- "$@" -l "[::1]:$port"
        serve "$@"
    done
    echo "etc/demo.sh: port 1 and 1001 to 1010 are all taken; LISTEN=127.0.0.1:PORT make run takes another" >&2
    exit 1
}

case ${1:-} in
conf) conf "$2" ;;
run) run "$2" ;;
*)
    sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
    exit 1
    ;;
esac
