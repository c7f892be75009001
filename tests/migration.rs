//! fived(8), INSTEAD OF INETD AND XINETD: its commands, typed as they are written, on a computer
//! that has tables of both.

mod support;
use std::process::Command;
use support::page::{in_order, page};
use support::*;

/// What the page says to type or to write; `#` is the prompt.
const WRITTEN: &[&str] = &[
    "# fived -t --inetd /etc/inetd.conf /etc/inetd.d",
    "# fived -t --xinetd /etc/xinetd.conf",
    ".Ql ln -sf /usr/local/sbin/fived /usr/sbin/inetd ,",
    ".Ql inetd = /etc/inetd.conf /etc/inetd.d",
    ".Ql xinetd = /etc/xinetd.conf",
    ".Ql fived -T --inetd /etc/inetd.conf /etc/inetd.d >/etc/fived.conf :",
    ".Ql fived --reload -p /run/inetd.pid",
    ".Pa /run/xinetd.pid",
];

/// Directories of the computer's own, the built fived where `make install` has it, and a syslog.
const COMPUTER: &str = r#"
ip link set lo up
for d in /var/lib /mnt; do mount -t tmpfs none $d; done
cp -a /etc/. /mnt && mount --bind /mnt /etc
mount -t tmpfs none /run
mkdir -p /run/dev/shm /run/dev/pts
for d in null zero random urandom tty full; do cp -a /dev/$d /run/dev/; done
ln -s /proc/self/fd /run/dev/fd
mount --bind /run/dev /dev
for d in /usr/sbin /usr/local/sbin; do mount -t tmpfs none $d; done
ln -s "$FIVED" /usr/local/sbin/fived
python3 -c '
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind("/dev/log")
while True: print("syslog", s.recv(9999).decode().split(": ", 1)[1], flush=True)' >/run/syslog &
rm -rf /etc/inetd.d; mkdir /etc/inetd.d
cat >/etc/inetd.conf <<END
# A table.
127.0.0.1:
finger stream tcp nowait.40 nobody /bin/echo in.fingerd one
rstatd/1-3 dgram rpc/udp wait root /usr/sbin/rpc.rstatd
END
echo '7202 stream tcp nowait nobody /bin/echo echo two' >/etc/inetd.d/two
cat >/etc/xinetd.conf <<END
defaults
{
 log_type = SYSLOG authpriv
}
service three
{
 type = UNLISTED
 port = 7203
 socket_type = stream
 wait = no
 user = nobody
 server = /bin/echo
 server_args = three
}
END
says() { cat </dev/tcp/127.0.0.1/$1; }
ended() { for n in $(seq 600); do [ -e $1 ] || return; sleep 0.1; done; echo "$1 stays"; }
until [ -S /dev/log ]; do sleep 0.05; done
"#;

const TYPED: &str = r#"
fived -t --inetd /etc/inetd.conf /etc/inetd.d; echo checked $?
fived -t --xinetd /etc/xinetd.conf; echo checked $?
ln -sf /usr/local/sbin/fived /usr/sbin/inetd
ln -sf /usr/local/sbin/fived /usr/sbin/xinetd
inetd; echo inetd $?
xinetd; echo xinetd $?
says finger; says 7202; says 7203; says 1
echo '7204 stream tcp nowait nobody /bin/echo echo four' >/etc/inetd.d/four
fived --reload -p /run/inetd.pid; echo reloaded $?
says 7204
fived --reload -p /run/xinetd.pid; echo reloaded $?
kill $(cat /run/inetd.pid /run/xinetd.pid); ended /run/inetd.pid; ended /run/xinetd.pid
xinetd -inetd_compat; echo both $?
says 7203; says finger
kill $(cat /run/xinetd.pid); ended /run/xinetd.pid
fived -T --inetd /etc/inetd.conf /etc/inetd.d >/etc/fived.conf
fived -b -p /run/fived.pid; echo printed $?
says finger; says 7202
kill $(cat /run/fived.pid); ended /run/fived.pid
printf 'inetd = /etc/inetd.conf /etc/inetd.d\nxinetd = /etc/xinetd.conf\n' >/etc/fived.conf
fived -b -p /run/fived.pid; echo beside $?
says finger; says 7202; says 7203
kill $(cat /run/fived.pid); ended /run/fived.pid
cat /run/syslog
kill %1
"#;

const SAID: &str = "/etc/inetd.conf:4: rpc/udp: not served: RPC|configuration OK|checked 0|\
    configuration OK|checked 0|listening on 127.0.0.1:79\n|listening on [::]:7202\n|inetd 0|\
    listening on [::]:7203\n|xinetd 0|one\n|two\n|three\n|/dev/tcp/127.0.0.1/1: |refused|\
    not served: RPC|reloaded 0|four\n|reloaded 0|both 0|three\n|one\n|printed 0|one\n|two\n|\
    beside 0|one\n|two\n|three\n|\
    syslog WARN /etc/inetd.conf:4: rpc/udp: not served|syslog listening on 127.0.0.1:79\n|\
    syslog START service=finger ";

#[test]
fn what_the_page_says_to_type_is_a_migration() {
    let all = page("fived.8");
    for words in WRITTEN {
        assert!(all.contains(words), "the page has no {words:?} any more, which is typed here");
    }
    if !(root() && installed("unshare") && installed("python3") && installed("ip")) {
        return skip("needs root, unshare, ip and python3");
    }
    let script = format!("{COMPUTER}{TYPED}");
    let mut command = Command::new("unshare");
    command.args(["-mnpf", "--mount-proc", "bash", "-c", &format!("exec 2>&1\n{script}")]);
    let path = "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin";
    command.env("FIVED", env!("CARGO_BIN_EXE_fived")).env("PATH", path);
    command.env_remove("NOTIFY_SOCKET");
    let out = command.output().expect("unshare");
    let out = String::from_utf8_lossy(&out.stdout);
    in_order(&out, SAID, TYPED);
    assert!(!out.contains(" stays"), "{out}");
}
