#!/bin/sh
# What `make run` does once fived is built. From the top of the checkout:
#
#   etc/demo.sh conf DIRECTORY    writes DIRECTORY/demo.conf: etc/demo.conf, fit for this place and this user
#   etc/demo.sh run PROGRAM       the same into target/, then PROGRAM in the foreground: on port 1 if that is allowed,
#                                 else on the first free one from 1001 upward that this user may have (1024, mostly);
#                                 on the loopback alone
#
# LISTEN=ADDRESS:PORT listens there instead (LISTEN='[::]:1': for everybody; mind that the demo's password is known).
set -eu
here=$(pwd)

conf() {
    user=$(id -un 2>/dev/null || id -u)
    # In a row user.group is a user and a group; such a name is said by its number.
    case $user in *[./:]*) user=$(id -u) ;; esac
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

# The first port that this user may bind.
first() {
    if [ "$(id -u)" = 0 ]; then
        echo 1
    else
        cat /proc/sys/net/ipv4/ip_unprivileged_port_start 2>/dev/null || echo 1024
    fi
}

hints() {
    cat <<END

fived serves port $1. In another terminal, type:

    printf 'HELP\r\n' | nc -N localhost $1                what is here?
    printf 'date\r\n' | nc -N localhost $1                a service, by its name
    nc -C localhost $1                                    then type HOST, main, motd; or AUTH, demo, demopass, facts
    openssl s_client -quiet -crlf -connect localhost:$1   TLS: then HELP, date, ...

or with the session client, which is built too (PATH=\$PWD/target/release:\$PATH):

    five -p $1 localhost                                  what is here? (it asks whether this is the right computer)
    five -p $1 localhost date                             a service, on the session that there is now
    five -p $1 demo@localhost facts                       a login; the password is demopass

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
    port=$(first)
    if [ "$port" -gt 1 ] || taken 1; then
        [ "$port" -gt 1001 ] || port=1001
        while taken "$port"; do port=$((port + 1)); done
    fi
    set -- "$1" "$port" -l "127.0.0.1:$port"
    # A computer without IPv6 has no ::1.
    ! grep -q '^0\{31\}1 ' /proc/net/if_inet6 2>/dev/null || set -- "$@" -l "[::1]:$port"
    serve "$@"
}

case ${1:-} in
conf) conf "$2" ;;
run) run "$2" ;;
*)
    sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
    exit 1
    ;;
esac
