"""The measuring half of benches/run, inside the namespaces that it makes. README.md here says how it measures."""
import contextlib, ctypes, fcntl, json, os, queue, signal, socket, statistics, struct, subprocess, sys, threading, time

FIVED, WORK, CGROUP = (os.environ[k] for k in ("FIVED", "WORK", "CGROUP"))
ROUNDS, SECS = int(os.environ.get("ROUNDS", "3")), os.environ.get("SECS", "1")
BULK = int(os.environ.get("BULK", str(1 << 30)))
BIN, CONF = WORK + "/bin/", "/run/bench"
TINY, ONE, FLOW, BARE, LOAD, TLS, GO = (BIN + n for n in ("tiny", "one", "flow", "bare", "load", "tls", "yamux-go"))
CERT, KEY, BOTH = (f"{CONF}/{n}.pem" for n in ("state/cert", "state/key", "both"))
END = "exec'd service\\r\\n"
CLIENTS = "16"
os.makedirs(CONF)


def say(*a):
    print("bench:", *a, file=sys.stderr, flush=True)


# ---- Servers

class Server:
    """One server in a cgroup of its own. Its listening is awaited in /proc/net/tcp, so that nobody knocks on it for that."""

    def __init__(self, name, argv, address, ports, **files):
        self.name, self.argv, self.address, self.ports, self.files = name, argv, address, ports, files
        self.group = CGROUP and f"{CGROUP}/{''.join(c if c.isalnum() else '_' for c in name)}"

    def start(self):
        for path, text in self.files.items():
            with open(f"{CONF}/{path}", "w") as f:
                f.write(text)
        if self.group:
            os.makedirs(self.group, exist_ok=True)

        def before():
            if self.group:
                with open(self.group + "/cgroup.procs", "w") as f:
                    f.write("0")
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)

        lib = ":".join(f"{WORK}/libraries/usr/lib/{os.uname().machine}-linux-gnu{x}" for x in ("", "/libtirpc"))
        env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C", **({} if "fived" in self.name else {"LD_LIBRARY_PATH": lib})}
        log = f"{CONF}/log.{os.path.basename(self.argv[0])}"
        with open(log, "w") as out:
            began = time.monotonic()
            self.process = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, preexec_fn=before, env=env, cwd="/")
        while time.monotonic() < began + 5:
            if all(listening(self.address, p) for p in self.ports):
                self.took = time.monotonic() - began
                return self
            time.sleep(0.002)
        say(f"{self.name} does not listen, left out. It says: {open(log).read()[-300:].strip() or 'nothing'}")
        self.stop()
        return None

    def pids(self):
        if self.group:
            return [int(p) for p in open(self.group + "/cgroup.procs").read().split()]
        return [self.process.pid] if self.process.poll() is None else []

    def threads(self):
        return [f"/proc/{p}/task/{t}" for p in self.pids() for t in os.listdir(f"/proc/{p}/task")]

    def switches(self):
        """How often its threads began to run."""
        lines = (l for t in self.threads() for l in open(t + "/status"))
        return sum(int(l.split()[1]) for l in lines if "ctxt_switches" in l)

    def memory(self):
        """Bytes that the kernel charges: pages, stacks, page tables, sockets."""
        for name in ("memory.usage_in_bytes", "memory.current"):
            if self.group and os.path.exists(f"{self.group}/{name}"):
                return int(open(f"{self.group}/{name}").read())
        return 0

    def stop(self):
        for number in (signal.SIGTERM, signal.SIGKILL):
            for _ in range(100):
                pids = self.pids()
                for p in pids:
                    try:
                        os.kill(p, number)
                    except OSError:
                        pass
                self.process.poll()
                if not pids:
                    break
                time.sleep(0.02)
        self.process.wait()
        if self.group:
            for _ in range(50):
                try:
                    return os.rmdir(self.group)
                except OSError:
                    time.sleep(0.05)


def listening(address, port):
    want = "".join("%02X" % int(x) for x in reversed(address.split("."))) + ":%04X" % port
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for f in (l.split() for l in open(table)):
            if len(f) > 3 and f[3] == "0A" and (f[1] in (want, "00000000:%04X" % port) or f[1] == "0" * 32 + ":%04X" % port):
                return True
    return False


def bare(mode, address, *program, port=1):
    return Server("bare " + mode, [BARE, *mode.split(), "-a", address, "-p", str(port), *(["-x", *program] if program else [])], address, [port])


def fived(name="fived", address="127.0.1.100", services=3, settings="", ports=1, rows="", program=FIVED):
    # Ports of their own: 7100 has the tiny program; the others are there to be many.
    own = "".join(f"p{i} stream tcp nowait root {TINY} tiny\n port = {address}:{7100 + i}\n tcpmux = no\n" for i in range(ports))
    big = "".join(f"s{i} stream tcp nowait root {TINY} tiny\n" for i in range(services - 3))
    # All clients are one source here. A build before these settings has no such bound.
    bounds = ("max_sessions_per_source", "max_services", "max_services_per_source")
    known = open(program, "rb").read()
    settings += "".join(f"\n{name} = 20000" for name in bounds if name.encode() in known)
    # The same services with a Unix pair in a stream.
    pairs = "".join(f"{n}-unix stream tcp nowait root {c}\n socket = unix\n" for n, c in
                    (("tiny", f"{TINY} tiny"), ("src", f"{FLOW} flow src {BULK}")))
    conf = f"""state_directory = {CONF}/state
max_connections = 20000
max_sessions = 2000
max_streams_anonymous = 256
max_streams = 256
{settings}
{big}tiny stream tcp nowait root {TINY} tiny
tls stream tcp nowait root {TINY} tiny
 tls_port = {address}:6443
 tcpmux = no
one dgram udp wait root {ONE} one
 port = {address}:7200
src stream tcp nowait root {FLOW} flow src {BULK}
src100 stream tcp nowait root {FLOW} flow src {BULK // 100}
hold stream tcp nowait root {FLOW} flow hold
{pairs}{own}{rows}"""
    listens = [1, *([7100, 7100 + ports - 1] if ports else [])]
    return Server(name, [program, "--config", f"{CONF}/{address}.conf", "--listen", address + ":1"], address, listens, **{address + ".conf": conf})


def peer(package, program, *a):
    path = f"{WORK}/{package}/usr/{program}"
    return [path, *a] if os.path.exists(path) else None


# Rate limits are off everywhere: what is measured is not their business.
def inetd():
    a, argv = "127.0.1.2", peer("inetutils-inetd", "sbin/inetutils-inetd", "-d", "-R", "2000000000", CONF + "/inetd.conf")
    argv = argv and [x for x in argv if x != "-d"]
    return argv and Server("GNU inetd", argv, a, [1], **{"inetd.conf": f"{a}:tcpmux stream tcp nowait root internal\ntcpmux/+tiny stream tcp nowait root {TINY} tiny\n"})


def xinetd():
    a, argv = "127.0.1.3", peer("xinetd", "sbin/xinetd", "-dontfork", "-stayalive", "-f", CONF + "/xinetd.conf", "-pidfile", CONF + "/xinetd.pid")
    conf = "defaults\n{\n instances = UNLIMITED\n per_source = UNLIMITED\n cps = 0 0\n}\n"
    for name, kind, more in (("tcpmux", "INTERNAL", f"bind = {a}"), ("tiny", "TCPMUXPLUS UNLISTED", f"server = {TINY}")):
        conf += f"service {name}\n{{\n type = {kind}\n socket_type = stream\n protocol = tcp\n wait = no\n user = root\n disable = no\n flags = NOLIBWRAP\n {more}\n}}\n"
    return argv and Server("xinetd", argv, a, [1], **{"xinetd.conf": conf})


def tcpserver():
    a = "127.0.1.4"
    argv = peer("ucspi-tcp", "bin/tcpserver", "-q", "-R", "-H", "-l0", "-c", "20000", "-b", "4096", a, "7000", TINY)
    return argv and Server("tcpserver (a port of its own)", argv, a, [7000])


def stunnel():
    a, argv = "127.0.1.5", peer("stunnel4", "bin/stunnel4", CONF + "/stunnel.conf")
    conf = "foreground = yes\npid =\ndebug = 2\nsyslog = no\noutput = /dev/null\n"
    for port, what in ((7443, f"exec = {TINY}\nexecArgs = tiny"), (7444, f"exec = {FLOW}\nexecArgs = flow src {BULK}"), (7445, "connect = 127.0.1.20:7002")):
        conf += f"[{port}]\naccept = {a}:{port}\ncert = {CERT}\nkey = {KEY}\nsslVersion = TLSv1.3\n{what}\n"
    return argv and Server("stunnel, exec", argv, a, [7443, 7444, 7445], **{"stunnel.conf": conf})


def socat(port, what):
    a = "127.0.1.6"
    listen = f"OPENSSL-LISTEN:{port},bind={a},reuseaddr,fork,backlog=4096,nodelay,cert={CERT},key={KEY},verify=0,openssl-min-proto-version=TLS1.3"
    argv = peer("socat", "bin/socat", listen, what)
    return argv and Server(f"socat, exec {port}", argv, a, [port])


def haproxy():
    a, argv = "127.0.1.7", peer("haproxy", "sbin/haproxy", "-db", "-f", CONF + "/haproxy.cfg")
    conf = "global\n maxconn 8000\n nbthread 1\ndefaults\n mode tcp\n timeout connect 5s\n timeout client 600s\n timeout server 600s\n"
    for port, back in ((7444, 7001), (7445, 7002)):
        conf += f"frontend f{port}\n bind {a}:{port} ssl crt {BOTH} ssl-min-ver TLSv1.3\n default_backend b{port}\nbackend b{port}\n server s 127.0.1.20:{back}\n"
    return argv and Server("haproxy, connect", argv, a, [7444, 7445], **{"haproxy.cfg": conf})


def redirects(program=FIVED, own="127.0.1.30", name="fived, redirect"):
    """Ports that lead to running servers on 127.0.1.20: one that writes a line, one that writes BULK bytes, one that holds. fived's, HAProxy's, xinetd's and socat's."""
    to = {7101: 7003, 7102: 7001, 7103: 7002}
    a = "127.0.1.31"
    conf = f"max_connections = 20000\nmax_services = 20000\nmax_services_per_source = 20000\nstate_directory = {CONF}/state\n"
    conf += "".join(f"r{p} stream tcp nowait root redirect 127.0.1.20:{back}\n port = {own}:{p}\n log_on_success =\n" for p, back in to.items())
    fived_ = Server(name, [program, "--config", f"{CONF}/{own}.conf", "--listen", own + ":1"], own, [1, *to], **{own + ".conf": conf})
    argv = peer("haproxy", "sbin/haproxy", "-db", "-f", CONF + "/tcp.cfg")
    conf = "global\n maxconn 9500\n maxpipes 100\n nbthread 2\ndefaults\n mode tcp\n option splice-auto\n timeout connect 5s\n timeout client 600s\n timeout server 600s\n"
    conf += "".join(f"frontend f{p}\n bind {a}:{p}\n default_backend b{p}\nbackend b{p}\n server s 127.0.1.20:{back}\n" for p, back in to.items())
    ha = argv and Server("haproxy, mode tcp", argv, a, list(to), **{"tcp.cfg": conf})
    a, argv = "127.0.1.32", peer("xinetd", "sbin/xinetd", "-dontfork", "-f", CONF + "/redirect.xinetd")
    conf = "defaults\n{\n instances = UNLIMITED\n cps = 100000 1\n}\n" + "".join(
        f"service r{p}\n{{\n type = UNLISTED\n socket_type = stream\n protocol = tcp\n wait = no\n user = root\n bind = {a}\n port = {p}\n redirect = 127.0.1.20 {back}\n}}\n" for p, back in to.items())
    return fived_, ha, argv and Server("xinetd, redirect", argv, a, list(to), **{"redirect.xinetd": conf})


def rustls(port, *what):
    a = "127.0.1.50"
    return Server(f"bare rustls {port}", [TLS, "tls-serve", "-a", a, "-p", str(port), "-C", CERT, "-K", KEY, "-t", "4", *what], a, [port])


# ---- Rows

def run(*argv):
    """A load tool's JSON line; {} and a word where it failed."""
    try:
        p = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)
        r = json.loads(p.stdout.decode().strip().split("\n")[-1])
    except (subprocess.TimeoutExpired, ValueError) as e:
        say(" ".join(argv[:2]), e)
        return {}
    if r.get("errors") or r.get("ok") is False:
        say(f"{argv[0]} {argv[1]}: {r}")
        return {}
    return r


class Row:
    """`measure` gives a number, or None where it could not. `must`: at least (or `most`) so much of the row `of`, or of nothing."""

    def __init__(self, name, measure, of=None, must=None, most=False):
        self.name, self.measure, self.of, self.must, self.most, self.got = name, measure, of, must, most, []


def took(server, key, *argv):
    return server and (lambda: run(*argv).get(key))


def load(server, *mode, clients=CLIENTS, key="rate", options=()):
    return took(server, key, LOAD, "-h", server.address, "-p", str(server.ports[0]), "-c", clients, "-d", SECS, "-w", "0.1", *options, *mode) if server else None


def port_load(server, clients=CLIENTS):
    """Starts by connecting alone, at fived's port 7100."""
    return took(server, "rate", LOAD, "-h", server.address, "-p", "7100", "-c", clients, "-d", SECS, "-w", "0.1", "plain", END) if server else None


def bulk(server, name):
    return took(server, "bytes_per_s", LOAD, "-h", server.address, "-p", "1", "bulk", name, str(BULK)) if server else None


def tls(server, port, command, *a, key):
    return took(server, key, TLS, command, "-h", server.address, "-p", str(port), *a) if server else None


ANY = MISSED = 0


def number(x):
    return f"{x:,.0f}" if x >= 100 else f"{x:.2f}"


def table(title, unit, rows, rounds=None, scale=1.0):
    """Rows interleaved, the first one another in each round; printed as medians with min and max, and ratios by round."""
    global ANY, MISSED
    rows, rounds = [r for r in rows if r.measure], rounds or ROUNDS
    for n in range(rounds):
        for i in range(len(rows)):
            r = rows[(i + n) % len(rows)]
            time.sleep(0.1)
            v = r.measure()
            r.got.append(v if v is None else v * scale)
    out = [["", unit, "min - max", "ratio", "min - max", "must"]]
    by_name = {r.name: r for r in rows}
    for r in rows:
        values = [v for v in r.got if v is not None]
        if not values:
            say(f"{title}: {r.name}: nothing was measured")
            continue
        ANY += 1
        line = [r.name, number(statistics.median(values)), f"{number(min(values))} - {number(max(values))}", "", "", ""]
        base = by_name.get(r.of)
        ratios = [a / b for a, b in zip(r.got, base.got) if a is not None and b] if base and base is not r else []
        if ratios:
            line[3:5] = f"{statistics.median(ratios):.2f}", f"{min(ratios):.2f} - {max(ratios):.2f}"
        judged = ratios if r.of else values
        if r.must is not None and judged:
            m = statistics.median(judged)
            well = m <= r.must if r.most else m >= r.must
            MISSED += not well
            line[5] = f"{'<=' if r.most else '>='} {round(r.must, 2):g}" + ("" if well else "  MISSED")
        out.append(line)
    width = [max(len(l[i]) for l in out) for i in range(6)]
    print(f"\n{title}")
    for l in out:
        print("  " + "  ".join(c.ljust(w) if i in (0, 5) else c.rjust(w) for i, (c, w) in enumerate(zip(l, width))).rstrip())
    if base_note := {r.of for r in rows if r.of}:
        print(f"  ratio: to {', '.join(sorted(base_note))}")
    sys.stdout.flush()


class Up:
    """Servers for the length of a block; None for one that is not there."""

    def __init__(self, *servers):
        self.servers = servers

    def __enter__(self):
        self.servers = [s and s.start() for s in self.servers]
        return self.servers

    def __exit__(self, *_):
        for s in filter(None, self.servers):
            s.stop()


# ---- Groups

def help_():
    with Up(bare("help", "127.0.1.1"), fived(), inetd(), xinetd()) as servers:
        rows = [Row(s.name, load(s, "help"), "bare help", 0.85 if s.name == "fived" else None) for s in servers if s]
        table(f"HELP, {CLIENTS} clients at a time (xinetd has no HELP: its refusal costs it the same)", "requests/s", rows)


@contextlib.contextmanager
def one_core():
    """Everything that begins in this block, servers and clients, has one processor together."""
    all_ = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(all_)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, all_)


def start():
    apart = bare("apart", "127.0.1.10", TINY)
    with Up(bare("vfork", "127.0.1.1", TINY), apart, fived(), inetd(), xinetd(), tcpserver()) as servers:
        _, _, own, _, _, own_port = servers
        kind = lambda s: ("plain", END) if s is own_port else ("exec", "tiny", END)
        for clients, title in ((CLIENTS, f"{CLIENTS} clients at a time"), ("1", "one client at a time")):
            must = 0.8 if clients == CLIENTS else 0.85
            rows = [Row(s.name, load(s, *kind(s), clients=clients), "bare vfork", must if s is own else None) for s in servers if s]
            rows.append(Row("fived, a port of its own", port_load(own, clients), "bare vfork", 0.95))
            table(f"starting a tiny static program, {title}", "starts/s", rows, 2 * ROUNDS)
    with one_core(), Up(bare("vfork", "127.0.1.1", TINY), apart, fived(), tcpserver()) as servers:
        _, _, own, own_port = servers
        kind = lambda s: ("plain", END) if s is own_port else ("exec", "tiny", END)
        rows = [Row(s.name, load(s, *kind(s), clients="1"), "bare vfork", 0.7 if s is own else None) for s in servers if s]
        table("starting a tiny static program, one client at a time, all on one core", "starts/s", rows, 2 * ROUNDS)


def storm():
    """TLS handshakes, one client, beside 256 clients that ask for a tiny service without a pause: at the beginning and after a while.

    A handshake's time is the machine's, which others use too; how many starts of the 256 went before it is fived's own. That must not grow."""
    long = float(os.environ.get("STORM", "20"))
    first, last = "fived, in the first second", f"fived, after {long:g} s"
    before = {}
    started = lambda: open(f"{CONF}/log.fived").read().count("START ")

    def beside(server, port, other, after, *a, name=None):
        def measure():
            words = [LOAD, "-h", other.address, "-p", str(other.ports[0]), "-c", "256", "-d", str(after + float(SECS) + 2), "-w", "0.1", "exec", "tiny", END]
            q = subprocess.Popen(words, stdout=subprocess.DEVNULL)
            time.sleep(after + 0.5)
            at, n = time.monotonic(), started()
            got = tls(server, port, "tls-hs", "-c", "1", "-d", SECS, "-w", "0.1", "-e", END, *a, key="p50_us")()
            if name:
                before.setdefault(name, []).append(got / 1e6 * (started() - n) / (time.monotonic() - at) if got else None)
            q.terminate()
            q.wait()
            return got
        return measure

    with Up(fived(), rustls(7443, "exec", TINY), bare("vfork", "127.0.1.1", TINY)) as (own, limit, vfork):
        ours = ("-P", "SSL", "-I", "tiny")
        table("TLS handshake and a tiny service, one client, beside 256 that start tiny services", "us", [
            Row("bare rustls beside bare vfork", beside(limit, 7443, vfork, 0)),
            Row("fived, alone", tls(own, 1, "tls-hs", "-c", "1", "-d", SECS, "-w", "0.1", "-e", END, *ours, key="p50_us")),
            Row(first, beside(own, 1, own, 0, *ours, name=first)),
            Row(last, beside(own, 1, own, long, *ours, name=last), first),
        ])
    if before:
        given = lambda name: iter(before[name]).__next__
        table("starts that go before such a handshake and its service", "starts", [Row(first, given(first)), Row(last, given(last), first, 1.5, most=True)], len(before[last]))


def silent():
    """2,000 clients that say nothing."""
    seen = {"fived, memory MiB": [], "fived, processes and threads more": [], "fived, next client us": [], "bare vfork, next client us": []}

    def one(server, name):
        with Up(server) as [s]:
            probe = load(s, "exec", "tiny", END, clients="1", key="p50_us")
            probe()
            time.sleep(1)
            before = (s.memory(), len(s.threads()))
            q = subprocess.Popen([LOAD, "-h", s.address, "-p", "1", "idle", "2000", "2000"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            opened = json.loads(q.stdout.readline())["open"]
            time.sleep(0.5)
            if name == "fived" and opened == 2000:
                seen["fived, memory MiB"].append((s.memory() - before[0]) / 2**20 if s.group else None)
                seen["fived, processes and threads more"].append(len(s.threads()) - before[1])
            seen[name + ", next client us"].append(probe())
            q.stdin.close()
            q.wait()

    for _ in range(ROUNDS):
        one(bare("vfork", "127.0.1.1", TINY), "bare vfork")
        one(fived(), "fived")
    given = lambda name: iter(seen[name]).__next__
    row = lambda name, **k: Row(name, given(name), **k)
    table("2,000 silent clients", "", [row("fived, memory MiB", must=4, most=True), row("fived, processes and threads more", must=0, most=True),
                                       row("bare vfork, next client us"), row("fived, next client us", of="bare vfork, next client us")])


def big_table():
    def begin():
        with Up(fived("fived of 10,000", "127.0.1.101", 10_000)) as [s]:
            return s and s.took

    table("a table of 10,000 services: from exec to listening", "ms", [Row("fived", begin, must=100, most=True)], scale=1e3)
    with Up(fived("fived of 10", "127.0.1.102", 10), fived("fived of 10,000", "127.0.1.101", 10_000)) as servers:
        rows = [Row(s.name, load(s, "exec", "tiny", END), "fived of 10", 0.9 if "000" in s.name else None) for s in servers if s]
        table("the same: a service of it", "starts/s", rows, 2 * ROUNDS)


def ports():
    def begin():
        with Up(fived("fived of 10,000 ports", "127.0.1.101", ports=10_000)) as [s]:
            return s and s.took

    table("a table of 10,000 ports: from exec to listening", "ms", [Row("fived", begin, must=1000, most=True)], scale=1e3)
    with Up(fived("fived of 10 ports", "127.0.1.102", ports=10), fived("fived of 10,000 ports", "127.0.1.101", ports=10_000)) as servers:
        rows = [Row(s.name, port_load(s), "fived of 10 ports", 0.9 if "000" in s.name else None) for s in servers if s]
        table("the same: a service at one of them", "starts/s", rows, 2 * ROUNDS)


def datagrams():
    """Programs that get the socket itself (`dgram wait`), one datagram each."""
    at, conf = "127.0.1.40", "service one\n{\n type = UNLISTED\n socket_type = dgram\n protocol = udp\n wait = yes\n user = root\n"
    conf = f"defaults\n{{\n instances = UNLIMITED\n cps = 0 0\n}}\n{conf} bind = 127.0.1.42\n port = 7200\n server = {ONE}\n flags = NOLIBWRAP\n}}\n"
    x = peer("xinetd", "sbin/xinetd", "-dontfork", "-stayalive", "-f", CONF + "/dgram.xinetd", "-pidfile", CONF + "/dgram.pid")
    g = peer("inetutils-inetd", "sbin/inetutils-inetd", "-R", "2000000000", CONF + "/dgram.inetd")
    others = [x and Server("xinetd", x, "127.0.1.42", [], **{"dgram.xinetd": conf}),
              g and Server("GNU inetd", [g[0], "-d", *g[1:]], "127.0.1.43", [], **{"dgram.inetd": f"127.0.1.43:7200 dgram udp wait root {ONE} one\n"})]
    owed = "the same with what each program is owed"
    bares = [Server(name, [BARE, mode, "-a", a, "-p", "7200", "-x", ONE], a, []) for name, mode, a in (("bare poll and vfork", "dgram", at), (owed, "wait", "127.0.1.41"))]
    with Up(*bares, fived(), *others) as servers:
        time.sleep(1)
        for clients, title in ((CLIENTS, f"{CLIENTS} clients at a time"), ("1", "one client at a time")):
            rate = lambda s: took(s, "rate", LOAD, "-h", s.address, "-p", "7200", "-c", clients, "-d", SECS, "-w", "0.1", "dgram")
            rows = [Row(s.name, rate(s), "bare poll and vfork", 0.9 if s.name == "fived" else None) for s in servers if s]
            rows += [Row("fived to that", rate(s), owed) for s in servers if s and s.name == "fived"]
            table(f"datagrams, each to a program that answers one and exits (dgram wait), {title}", "answers/s", rows, 3 * ROUNDS)


def proxy():
    """Connections of a load balancer that says who its client is (PROXY v2), beside those of clients themselves."""
    with Up(fived(), fived("fived, PROXY v2 in", "127.0.1.103", settings="proxy_from = 127.0.0.0/8")) as (own, behind):
        for what, title in (("help",), "lists of services"), (("exec", "tiny", END), "starts"):
            rows = [Row(own.name, load(own, *what)), Row(behind.name, load(behind, *what, options=("-2",)), own.name, 0.95)]
            table(f"{title}, {CLIENTS} clients at a time", "connections/s", rows, 2 * ROUNDS)


def metrics():
    """A scrape of the metrics of 10,000 services, each of which has been started, and what it delays."""
    at = "127.0.1.104"
    row = f"metrics stream tcp nowait root internal\n port = {at}:7300\n tcpmux = no\n"
    with Up(fived("fived", at, services=10_003, rows=row)) as [own]:
        def ask(port, text):
            with socket.create_connection((at, port)) as s:
                s.sendall(text)
                said = b""
                while got := s.recv(1 << 20):
                    said += got
                return said

        for i in range(10_000):
            ask(1, b"s%d\r\n" % i)

        def scrape():
            began = time.monotonic()
            said = ask(7300, b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
            took = time.monotonic() - began
            return took if said.count(b"\nfived_starts_total{") > 10_000 else None

        table("a scrape of the metrics of 10,000 services", "ms", [Row("fived", scrape, must=50, most=True)], 5 * ROUNDS, scale=1e3)
        plain = load(own, "exec", "tiny", END, key="p99_us")

        def beside():
            over = threading.Event()

            def again():
                while not over.wait(0.2):
                    scrape()

            t = threading.Thread(target=again)
            t.start()
            got = plain()
            over.set()
            t.join()
            return got

        table(f"99 of 100 starts take at most, {CLIENTS} clients at a time", "us", [Row("alone", plain), Row("beside five scrapes a second", beside, "alone")])


def redirect():
    at = "127.0.1.20"
    with Up(bare("line", at, port=7003), bare(f"src {BULK}", at, port=7001), bare("hold", at, port=7002), bare(f"splice {at}:7001", "127.0.1.33", port=7102), bare(f"relay {at}:7003", "127.0.1.35", port=7101), *redirects()) as (line, _, _, splice, relay, *all_):
        own = all_[0]
        many = lambda s: took(s, "rate", LOAD, "-h", s.address, "-p", "7101", "-c", CLIENTS, "-d", SECS, "-w", "0.1", "plain", END) if s else None
        musts = {"haproxy, mode tcp": 1, "xinetd, redirect": 10}
        rows = [Row("the server itself", load(line, "plain", END)), Row("bare relay", many(relay), "the server itself")]
        rows += [Row(s.name, many(s), "the server itself") for s in all_ if s]
        rows += [Row(f"fived to {s.name}", many(own), s.name, musts[s.name]) for s in all_[1:] if s]
        table(f"redirected connections, {CLIENTS} clients at a time", "connections/s", rows, 2 * ROUNDS)
        bytes_ = lambda s: took(s, "bytes_per_s", LOAD, "-h", s.address, "-p", "7102", "bulk", "-", str(BULK)) if s else None
        rows = [Row("a bare splice loop", bytes_(splice)), Row("fived, redirect", bytes_(own), "a bare splice loop", 0.9)]
        for s in filter(None, all_[1:]):
            rows += [Row(s.name, bytes_(s), "a bare splice loop"), Row(f"fived to {s.name}", bytes_(own), s.name, 1)]
        table(f"redirected bytes, one connection, {BULK >> 20} MiB to the client", "MB/s", rows, 3 * ROUNDS, scale=1e-6)

    def idle(k):
        def measure():
            with Up(bare("hold", at, port=7002), redirects()[k]) as (_, s):
                if not s:
                    return None
                before = s.memory()
                q = subprocess.Popen([LOAD, "-h", s.address, "-p", "7103", "idle", "9000", "5000"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
                opened = json.loads(q.stdout.readline())["open"]
                time.sleep(2)
                each = (s.memory() - before) / max(opened, 1) / 1024
                q.stdin.close()
                q.wait()
                return each
        return measure if CGROUP and redirects()[k] else None

    table("an idle redirected connection of 9,000, all that the kernel charges", "KiB", [Row("fived, redirect", idle(0), must=12, most=True), Row("haproxy, mode tcp", idle(1))], 1)


def tls_():
    with Up(fived()):  # makes the certificate
        with open(BOTH, "wb") as out:
            out.writelines(open(f, "rb").read() for f in (CERT, KEY))
    new = lambda s, port, *a: tls(s, port, "tls-hs", "-c", "8", "-d", SECS, "-w", "0.1", "-e", END, *a, key="rate")
    with Up(rustls(7443, "exec", TINY), fived(), stunnel(), socat(7443, "EXEC:" + TINY)) as (limit, own, st, so):
        table("new TLS 1.3 sessions, each starting a tiny static program (P-256, no resumption), 8 clients at a time", "sessions/s", [
            Row("bare rustls and posix_spawn", new(limit, 7443)),
            Row("fived", new(own, 1, "-P", "SSL", "-I", "tiny"), "bare rustls and posix_spawn", 0.5),
            Row("stunnel, exec", new(st, 7443), "bare rustls and posix_spawn"),
            Row("socat, exec", new(so, 7443), "bare rustls and posix_spawn"),
            Row("fived to stunnel", new(own, 1, "-P", "SSL", "-I", "tiny"), "stunnel, exec", 3 if st else None),
            Row("fived, tls_port", new(own, 6443), "bare rustls and posix_spawn", 0.7),
            Row("fived, tls_port, to stunnel", new(own, 6443), "stunnel, exec", 5 if st else None)])
    many = lambda s, port, *a: tls(s, port, "tls-bulk", "-n", str(BULK), *a, key="bytes_per_s")
    with Up(bare(f"src {BULK}", "127.0.1.20", port=7001), bare("hold", "127.0.1.20", port=7002), rustls(7444, "exec", FLOW, "src", str(BULK)), fived(),
            stunnel(), haproxy(), socat(7444, f"EXEC:{FLOW} src {BULK}")) as (_, _, limit, own, st, ha, so):
        table(f"bytes of one TLS service, {BULK >> 20} MiB to the client", "MB/s", [
            Row("bare rustls relay", many(limit, 7444)),
            Row("fived", many(own, 1, "-P", "SSL", "-I", "src"), "bare rustls relay", 0.8),
            Row("stunnel, exec", many(st, 7444), "bare rustls relay"),
            Row("haproxy, connect", many(ha, 7444), "bare rustls relay"),
            Row("socat, exec", many(so, 7444), "bare rustls relay"),
            Row("fived to stunnel", many(own, 1, "-P", "SSL", "-I", "src"), "stunnel, exec", 1.5 if st else None)], scale=1e-6)

    def idle(server, port, *a):
        def measure():
            with Up(server()) as [s]:
                if not s:
                    return None
                before = s.memory()
                q = subprocess.Popen([TLS, "tls-idle", "-h", s.address, "-p", str(port), "-c", "500", *a], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
                opened = json.loads(q.stdout.readline())["open"]
                # fived's sessions give their threads back after a second of silence.
                time.sleep(2.5)
                each = (s.memory() - before) / max(opened, 1) / 1024
                q.stdin.close()
                q.wait()
                return each
        return measure if CGROUP and server() else None

    with Up(bare("hold", "127.0.1.20", port=7002)):
        table("an idle TLS session, all that the kernel charges", "KiB", [
            Row("bare rustls, no thread each", idle(lambda: rustls(7445, "hold"), 7445)), Row("fived", idle(fived, 1, "-P", "SSL"), must=40, most=True),
            Row("stunnel, with its connection to a backend", idle(stunnel, 7445)), Row("haproxy, with its connection to a backend", idle(haproxy, 7445))])


def mux():
    ry = Server("yamux crate", [TLS, "yamux-serve", "-a", "127.0.1.60", "-p", "7100"], "127.0.1.60", [7100])
    gy = os.path.exists(GO) and Server("Go's yamux", [GO, "serve", "127.0.1.61:7100"], "127.0.1.61", [7100])
    with Up(bare("vfork", "127.0.1.1", TINY), fived()) as (limit, own):
        stream = lambda name: tls(own, 1, "yamux-lat", "-c", "1", "-d", SECS, "-w", "0.1", "-P", "MULTIPLEX", "-I", name, "-e", END, key="p50_us")
        table("a new stream of a tiny service in a standing session, to its last byte", "us", [
            Row("a TCP connection to bare vfork", load(limit, "exec", "tiny", END, clients="1", key="p50_us")),
            Row("fived, MULTIPLEX", stream("tiny"),
                "a TCP connection to bare vfork", 1.5, most=True),
            Row("fived, socket = unix", stream("tiny-unix"), "a TCP connection to bare vfork"),
            Row("socket = inet beside it", stream("tiny"), "fived, socket = unix", 1.3, most=True)], 2 * ROUNDS)
    many = lambda s, n, *a: tls(s, s.ports[0] if s else 0, "yamux-bulk", "-c", n, "-n", str(BULK), *a, key="bytes_per_s")
    go = lambda s, n: took(s, "bytes_per_s", GO, "bulk", "127.0.1.61:7100", n, str(BULK))
    with Up(bare("vfork", "127.0.1.1", FLOW, "src", str(BULK)), fived(), ry, gy) as (plain, own, crate, hashicorp):
        p = "an exec'd service, plain TCP"
        rows = [Row(p, bulk(plain, "src"))]
        for n, title in (("1", ", 1 stream"), ("100", ", 100 streams")):
            one = many(own, n, "-P", "MULTIPLEX", "-I", "src" if n == "1" else "src100")
            rows += [Row("fived, an exec'd service" + title, one, p, 1500 / 2900), Row("yamux crate, itself" + title, many(crate, n), p),
                     Row("Go's yamux, itself" + title, go(hashicorp, n), p)]
            if n == "1":
                unix = "fived, socket = unix" + title
                rows += [Row(unix, many(own, n, "-P", "MULTIPLEX", "-I", "src-unix"), p), Row("socket = inet beside it" + title, one, unix, 0.9)]
            if hashicorp:
                rows.append(Row("fived to Go's" + title, one, "Go's yamux, itself" + title, 1))
        table(f"bytes over one multiplexed connection, {BULK >> 20} MiB to the client", "MB/s", rows, scale=1e-6)
    with Up(fived()) as [own]:
        rate, calm, held = load(own, "exec", "tiny", END), [], []
        for _ in range(ROUNDS):
            calm.append(rate())
            sessions = [socket.create_connection((own.address, 1)) for _ in range(1000)]
            for s in sessions:
                s.sendall(b"MULTIPLEX\r\n")
                s.recv(64)
            time.sleep(1)
            before = own.switches()
            time.sleep(2)
            woken = own.switches() - before
            held.append((rate(), woken))
            for s in sessions:
                s.close()
            time.sleep(1)
        table("1,000 idle sessions", "", [Row("starts/s without them", iter(calm).__next__), Row("starts/s beside them", iter([h[0] for h in held]).__next__, "starts/s without them", 0.9),
                                          Row("wake-ups in 2 s", iter([h[1] for h in held]).__next__, must=5, most=True)])


def sshd():
    a, here = "127.0.1.8", CONF + "/ssh"
    argv, keygen = peer("openssh-server", "sbin/sshd", "-D", "-e", "-f", here + "/config"), peer("openssh-client", "bin/ssh-keygen")
    if not argv or not keygen:
        return None
    os.makedirs(here, exist_ok=True)
    os.makedirs("/run/sshd", exist_ok=True)
    for key in ("host", "user"):
        if not os.path.exists(f"{here}/{key}"):
            subprocess.run([*keygen, "-q", "-t", "ed25519", "-N", "", "-f", f"{here}/{key}"], check=True)
    conf = f"""ListenAddress {a}:22
HostKey {here}/host
AuthorizedKeysFile {here}/user.pub
StrictModes no
PermitRootLogin yes
UsePAM no
PidFile none
MaxSessions 200
"""
    return Server("sshd", argv, a, [22], **{"ssh/config": conf})


class Late:
    """A way to a server on which each direction takes `seconds` more; how long that makes a whole process is its round trips."""

    def __init__(self, to, seconds):
        self.listener, self.to, self.seconds = socket.create_server(("127.0.1.9", 0)), to, seconds
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            client, server = self.listener.accept()[0], socket.create_connection(self.to)
            for a, b in ((client, server), (server, client)):
                b.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self.copy, args=(a, b), daemon=True).start()

    def copy(self, a, b):
        on_the_way = queue.SimpleQueue()
        threading.Thread(target=self.deliver, args=(on_the_way, b), daemon=True).start()
        part = b"x"
        while part:
            try:
                part = a.recv(65536)
            except OSError:
                part = b""
            on_the_way.put((time.monotonic() + self.seconds, part))

    def deliver(self, on_the_way, to):
        try:
            while True:
                due, part = on_the_way.get()
                time.sleep(max(0, due - time.monotonic()))
                if not part:
                    return to.shutdown(socket.SHUT_WR)
                to.sendall(part)
        except OSError:
            pass

    @property
    def port(self):
        return self.listener.getsockname()[1]


def whole(argv, n=1, out=subprocess.DEVNULL):
    """How long the process takes, in seconds: the median of n."""
    took = []
    for _ in range(n):
        began = time.monotonic()
        if subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.PIPE, timeout=120).returncode:
            return None
        took.append(time.monotonic() - began)
    return statistics.median(took)


def five():
    home, client, late = CONF + "/home", os.path.dirname(FIVED) + "/five", 0.05
    for d in ("/.ssh", "/run"):
        os.makedirs(home + d, exist_ok=True)
    os.environ.update(HOME=home, XDG_RUNTIME_DIR=home + "/run", XDG_CONFIG_HOME=home + "/config")
    os.environ.pop("SSH_AUTH_SOCK", None)
    with Up(fived(settings=f"authorized_keys = {CONF}/keys/%u"), sshd()) as (own, ssh):
        place = own.address
        shell = peer("openssh-client", "bin/ssh") if ssh else None
        key = f"{CONF}/ssh/user"
        if shell:
            os.makedirs(CONF + "/keys", exist_ok=True)
            with open(CONF + "/keys/root", "w") as f:
                f.write(open(key + ".pub").read())
            shell = [*shell, "-F", "none", "-o", "UserKnownHostsFile=" + home + "/known", "-o", "StrictHostKeyChecking=no", "-o", "LogLevel=ERROR", "-i", key,
                     "-c", "aes128-gcm@openssh.com", "-l", "root"]
            control = [*shell, "-S", home + "/control", ssh.address]
            subprocess.run([*shell, "-S", home + "/control", "-M", "-N", "-f", ssh.address], check=True)
        call = [client, "-q", "--accept-new", place]
        subprocess.run([*call, "tiny"], check=True, stdout=subprocess.DEVNULL)
        ssh_row = lambda name, f: [Row(name, f)] if shell else []
        base = "ssh on a ControlMaster"
        table("a tiny service in a standing session, the whole process", "ms", [
            *ssh_row(base, lambda: whole([*control, TINY], 5)), Row("five", lambda: whole([*call, "tiny"], 20), base, 0.5 if shell else None, most=True)], scale=1e3)
        rate = lambda argv: lambda: (t := whole(argv)) and BULK / t
        table(f"bytes from an exec'd service, {BULK >> 20} MiB to /dev/null", "MB/s", [
            *ssh_row(base, rate([*control, FLOW, "src", str(BULK)])), Row("five", rate([*call, "src"]), base, 1 if shell else None)], scale=1e-6)
        # Through a way that takes 50 ms in each direction; TCP's own round trip is not on it.
        trips = lambda argv: lambda: (t := whole(argv)) and t / (2 * late) + 1
        door = Late((place, 1), late)
        fresh = [client, "-q", "-x", "--accept-new", *(["-l", "root", "-i", key] if shell else []), "-p", str(door.port), "127.0.1.9", "tiny"]
        subprocess.run(fresh, stdout=subprocess.DEVNULL)
        rows = [Row("five", trips(fresh), must=3.5, most=True)]
        if shell:
            other = Late((ssh.address, 22), late)
            rows.append(Row("ssh", trips([*shell, "-p", str(other.port), "127.0.1.9", TINY])))
        table("a fresh session with a login by key, to its end, over 100 ms: round trips", "", rows)
        held = [subprocess.Popen([*call, "hold"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(100)]
        time.sleep(2)
        check = lambda: subprocess.run([client, "-O", "check", place], stdout=subprocess.PIPE).stdout.decode()
        state = dict(w.split("=", 1) for w in check().split())
        assert state["streams"] == "100", state
        rss = int(next(l for l in open(f"/proc/{state['pid']}/status") if l.startswith("VmRSS")).split()[1])
        table("memory of a holder with 100 idle streams (VmRSS, shared pages too)", "MiB", [Row("five", lambda: rss / 1024, must=8, most=True)], 1)
        for p in held:
            p.stdin.close()
            p.wait()
        subprocess.run([client, "-O", "exit", place])
        if shell:
            subprocess.run([*control, "-O", "exit"], stderr=subprocess.DEVNULL)


def inner(server, word, command, *a, key):
    """MULTIPLEX or RESUME inside TLS, by the same client."""
    return tls(server, 1, command, "-P", "SSL", *a, word, key=key)


def resume():
    def row(of, measure, *a, **k):
        base = f"MULTIPLEX in TLS{of}"
        return [Row(base, measure("multiplex")), Row(f"RESUME{of}", measure("resume"), base, *a, **k)]

    with Up(fived()) as [own]:
        new = lambda word: inner(own, word, "resume-lat", "-d", SECS, "-w", "0.1", "-I", "tiny", "-e", END, key="p50_us")
        table("a new stream of a tiny service in a standing session, to its last byte", "us", row("", new, 1.05, most=True), 3 * ROUNDS)
        many = lambda n: lambda word: inner(own, word, "resume-bulk", "-c", n, "-n", str(BULK), "-I", "src" if n == "1" else "src100", key="bytes_per_s")
        table(f"bytes over one session, {BULK >> 20} MiB to the client", "MB/s",
              row(", 1 stream", many("1"), 0.95) + row(", 100 streams", many("100"), 0.95), 2 * ROUNDS, scale=1e-6)
    lost_memory()
    whole_calls()


def lost_memory():
    """1,000 sessions of one source lose their connections: what the kernel charges for them, connections and TLS no longer included."""
    kept = "resume_timeout_anonymous = 600\nmax_lost = 1000\nmax_connections = 5000\nlogin_timeout = 600"

    def each(*service):
        def measure():
            # Room for connections that were made anew.
            with Up(fived(settings=kept, rows="held stream tcp nowait root redirect 127.0.1.20:7002\n"), bare("hold", "127.0.1.20", port=7002)) as (s, _):
                before = s.memory()
                q = subprocess.Popen([TLS, "resume-idle", "-h", s.address, "-p", "1", "-P", "SSL", "-c", "1000", *service, "resume"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
                said = json.loads(q.stdout.readline())
                if said["open"] < 1000:
                    say(f"lost sessions: {said}")
                q.stdin.write(b"\n")
                q.stdin.flush()
                q.stdout.readline()
                time.sleep(2.5)
                got = (s.memory() - before) / said["open"] / 1024
                q.stdin.close()
                q.wait()
                return got
        return measure if CGROUP else None

    table("a lost session of 1,000, all that the kernel charges", "KiB", [
        Row("idle", each(), must=24, most=True), Row("with a stream that a redirect has", each("-I", "held"))], 2)


def client_home():
    """Nobody's configuration and sessions but its own."""
    home = CONF + "/home"
    for d in ("/.ssh", "/run"):
        os.makedirs(home + d, exist_ok=True)
    os.environ.update(HOME=home, XDG_RUNTIME_DIR=home + "/run", XDG_CONFIG_HOME=home + "/config")
    os.environ.pop("SSH_AUTH_SOCK", None)
    return home


def whole_calls():
    client_home()
    client, old = os.path.dirname(FIVED) + "/five", os.environ.get("OLD_FIVE")
    off = fived("fived, resume_timeout = 0", "127.0.1.104", settings="resume_timeout = 0")
    with Up(fived(), off) as (own, without):
        rows, bulks = [], []
        names = [("five, MULTIPLEX", client, without), ("five, RESUME", client, own)]
        if old:
            names.insert(0, ("an older five, without RUN", old, own))
        for name, program, server in names:
            call = [program, "-q", "--accept-new", server.address]
            if subprocess.run([*call, "tiny"], stdout=subprocess.DEVNULL).returncode:
                say(f"{name} cannot call")
                continue
            base = names[0][0]
            rows.append(Row(name, lambda call=call: whole([*call, "tiny"], 20), base, 1.05, most=True))
            bulks.append(Row(name, lambda call=call: BULK / whole([*call, "src"]), base, 0.95))
        table("a tiny service in a standing session, the whole process", "ms", rows, 3 * ROUNDS, scale=1e3)
        table(f"bytes from an exec'd service, {BULK >> 20} MiB to /dev/null, the whole process", "MB/s", bulks, 2 * ROUNDS, scale=1e-6)
        for _, program, server in names:
            subprocess.run([program, "-O", "exit", server.address], stderr=subprocess.DEVNULL)


def cuts():
    """five through a way that resets its connection: bytes in both directions at once."""
    client_home()
    client, done = os.path.dirname(FIVED) + "/five", []

    def both(server, seconds):
        def measure():
            q = subprocess.Popen([TLS, "cutter", "-h", server.address, "-p", "1", "-d", seconds], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            port = json.loads(q.stdout.readline())["port"]
            began = time.monotonic()
            source = subprocess.Popen([FLOW, "src", str(BULK)], stdout=subprocess.PIPE)
            call = subprocess.Popen([client, "-x", "-q", "--accept-new", "-p", str(port), "127.0.0.1", "echo"], stdin=source.stdout, stdout=subprocess.PIPE)
            source.stdout.close()
            sunk = subprocess.run([FLOW, "sink"], stdin=call.stdout, stdout=subprocess.PIPE).stdout.decode().strip()
            call.stdout.close()
            took_, status = time.monotonic() - began, call.wait()
            source.wait()
            q.stdin.close()
            n = json.loads(q.stdout.readline())["cuts"]
            q.wait()
            done.append(n)
            if status or sunk != f"sunk {BULK}":
                say(f"cuts: {status} {sunk} after {n} cuts")
                return None
            return 2 * BULK / took_
        return measure

    with Up(fived(rows=f"echo stream tcp nowait root {FLOW} flow echo\n")) as [own]:
        table(f"bytes of one five through a way, {BULK >> 20} MiB in each direction at once", "MB/s", [
            Row("never cut", both(own, "0")), Row("a reset every second", both(own, "1"), "never cut", 0.5), Row("a reset every 100 ms", both(own, "0.1"), "never cut")], scale=1e-6)
    say(f"{sum(done)} cuts")


def offered():
    """A service that another computer offers, beside a redirect to the same server."""
    home, client = client_home(), os.path.dirname(FIVED) + "/five"
    keygen = peer("openssh-client", "bin/ssh-keygen")
    if not keygen:
        return
    key = home + "/offers"
    subprocess.run([*keygen, "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    os.makedirs(CONF + "/keys", exist_ok=True)
    os.replace(key + ".pub", CONF + "/keys/root")
    rows = """web stream tcp nowait - offer
 offered_by = root
 log_on_success =
own stream tcp nowait - offer
 offered_by = root
 log_on_success =
 port = 127.0.1.100:7010
near stream tcp nowait root redirect 127.0.1.20:7003
 log_on_success =
next stream tcp nowait root redirect 127.0.1.20:7003
 log_on_success =
 port = 127.0.1.100:7011
"""
    with Up(fived(settings=f"authorized_keys = {CONF}/keys/%u", rows=rows), bare("line", "127.0.1.20", port=7003), sshd()) as (own, line, ssh):
        both = ["-R", "web:127.0.1.20:7003", "-R", "own:127.0.1.20:7003"]
        q = subprocess.Popen([client, "-q", "-N", "--accept-new", "-i", key, *both, f"root@{own.address}"])
        shell = peer("openssh-client", "bin/ssh") if ssh else None
        if shell:
            # Its server listens at loopback's own address alone, unless it is told otherwise.
            shell = subprocess.Popen([*shell, "-F", "none", "-o", "UserKnownHostsFile=" + home + "/known", "-o", "StrictHostKeyChecking=no", "-o", "LogLevel=ERROR", "-i", f"{CONF}/ssh/user",
                                      "-c", "aes128-gcm@openssh.com", "-l", "root", "-N", "-R", "7010:127.0.1.20:7003", ssh.address])
        for _ in range(100):
            if b"+" in subprocess.run([client, "--plain", own.address, "web"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout:
                break
            if run(LOAD, "-h", own.address, "-p", "1", "-c", "1", "-n", "1", "exec", "web", END):
                break
            time.sleep(0.1)
        one = lambda address, port, *mode: took(own, "p50_us", LOAD, "-f", "-h", address, "-p", port, "-c", "1", "-d", SECS, "-w", "0.1", *mode, END)
        table("a connection to a service that another computer has, to its first byte, one client", "us", [
            Row("redirect", one(own.address, "1", "exec", "near")), Row("offered by five", one(own.address, "1", "exec", "web"), "redirect", 1.5, most=True),
            Row("redirect, at a port of its own", one(own.address, "7011", "plain")), Row("offered by five, likewise", one(own.address, "7010", "plain"), "redirect, at a port of its own"),
            *([Row("ssh -R", one("127.0.0.1", "7010", "plain"), "redirect, at a port of its own")] if shell else [])], 3 * ROUNDS)
        if shell:
            shell.terminate()
            shell.wait()
        q.terminate()
        q.wait()
        subprocess.run([client, "-O", "exit", f"root@{own.address}"], stderr=subprocess.DEVNULL)


class Road:
    """A road between two network namespaces with a delay: a tun(4) device in each, and packets copied between them. No netem is needed."""

    def __init__(self, delay):
        self.delay, self.silent, self.names = delay, False, ("benchs", "benchc")
        libc, here = ctypes.CDLL(None, use_errno=True), os.open("/proc/self/ns/net", os.O_RDONLY)
        self.fds = []
        for n, name in enumerate(self.names):
            subprocess.run(["ip", "netns", "add", name], check=True)
            there = os.open("/run/netns/" + name, os.O_RDONLY)
            assert libc.setns(there, 0x40000000) == 0
            fd = os.open("/dev/net/tun", os.O_RDWR)
            fcntl.ioctl(fd, 0x400454CA, struct.pack("16sH", b"road", 0x1001))  # TUNSETIFF: IFF_TUN, IFF_NO_PI
            assert libc.setns(here, 0x40000000) == 0
            os.close(there)
            self.fds.append(fd)
            for words in (f"addr add 10.79.0.{n + 1}/24 dev road", "link set road up", "link set lo up"):
                subprocess.run(["ip", "-n", name, *words.split()], check=True)
        os.close(here)
        for a, b in (self.fds, self.fds[::-1]):
            threading.Thread(target=self.copy, args=(a, b), daemon=True).start()

    def copy(self, a, b):
        packets = queue.SimpleQueue()
        threading.Thread(target=self.deliver, args=(packets, b), daemon=True).start()
        while True:
            try:
                packet = os.read(a, 65536)
            except OSError:
                time.sleep(0.01)  # the device is down
                continue
            packets.put((time.monotonic() + self.delay, packet))

    def deliver(self, packets, b):
        while True:
            due, packet = packets.get()
            time.sleep(max(0, due - time.monotonic()))
            try:
                if not self.silent:
                    os.write(b, packet)
            except OSError:
                pass

    def link(self, to):
        subprocess.run(["ip", "-n", self.names[1], "link", "set", "road", to], check=True)

    def close(self):
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name])


def returns():
    """The network is away for some seconds; how long after its return the first byte comes that a service sends every 5 ms."""
    home, client, rtt, away = client_home(), os.path.dirname(FIVED) + "/five", 0.05, float(os.environ.get("AWAY", "8"))
    road = Road(rtt / 2)
    at, ways = "10.79.0.1", {}
    inside = lambda n, *argv: ["ip", "netns", "exec", road.names[n], *argv]
    try:
        conf = f"{CONF}/road.conf"
        with open(conf, "w") as f:
            f.write(f"state_directory = {CONF}/state\nticks stream tcp nowait root {FLOW} flow tick\n")
        servers = [subprocess.Popen(inside(0, FIVED, "--config", conf, "--listen", at + ":1"), stderr=open(CONF + "/log.road", "w"))]
        ways["five"] = inside(1, client, "-q", "-x", "--accept-new", at, "ticks")
        ssh = peer("openssh-client", "bin/ssh")
        sshd_ = sshd() if ssh else None
        if sshd_:
            with open(CONF + "/ssh/config", "w") as f:
                f.write(sshd_.files["ssh/config"].replace("127.0.1.8", at))
            servers.append(subprocess.Popen(inside(0, *sshd_.argv), stderr=subprocess.DEVNULL))
            shell = [*ssh, "-F", "none", "-o", "UserKnownHostsFile=" + home + "/known", "-o", "StrictHostKeyChecking=no", "-o", "LogLevel=ERROR", "-i", f"{CONF}/ssh/user", "-l", "root"]
            ways["ssh, which waits for TCP"] = inside(1, *shell, at, FLOW, "tick")
            if autossh := peer("autossh", "lib/autossh/autossh"):
                # Its ssh makes the session again; each call is a new one, so a call that fails is made again.
                master = inside(1, "env", f"AUTOSSH_PATH={ssh[0]}", "AUTOSSH_GATETIME=0", *autossh, "-M", "0", *shell[1:], "-o", "ServerAliveInterval=2", "-o", "ServerAliveCountMax=2", "-o", "ConnectTimeout=2", "-S", home + "/auto", "-o", "ControlMaster=yes", "-N", at)
                servers.append(subprocess.Popen(master, stderr=subprocess.DEVNULL))
                call = " ".join([*inside(1, *ssh), "-F", "none", "-o", "LogLevel=ERROR", "-o", "ProxyCommand=false", "-S", home + "/auto", at, FLOW, "tick"])
                ways["autossh and ControlMaster, the call made again"] = ["sh", "-c", f"while :; do {call} 2>/dev/null; sleep 0.05; done"]
        if mosh := peer("mosh", "bin/mosh-server"):
            ways["mosh"] = mosh
        time.sleep(1)
        one = {name: lambda how, name=name, argv=argv: first_byte(road, name, argv, how, away) for name, argv in ways.items()}
        for how, must in (("its link is down", 3 * rtt + 0.1), ("nothing comes through, and nobody is told", None)):
            table(f"{how} for {away:g} s: from the network's return to the first byte, over {rtt * 1e3:g} ms", "ms", [
                Row(name, lambda f=f: f(how), must=must * 1e3 if must and name == "five" else None, most=True) for name, f in one.items()], scale=1e3)
        for s in servers:
            s.terminate()
            s.wait()
    finally:
        road.close()


def first_byte(road, name, argv, how, away):
    """Seconds from the network's return to the first byte."""
    inside = lambda n, *argv: ["ip", "netns", "exec", road.names[n], *argv]
    if name == "mosh":
        lib = f"LD_LIBRARY_PATH={WORK}/libraries/usr/lib/{os.uname().machine}-linux-gnu"
        env = ["env", "LANG=C.UTF-8", "LC_ALL=C.UTF-8", "TERM=xterm", lib]
        said = subprocess.run(inside(0, *env, *argv, "new", "-i", "10.79.0.1", "--", "sh", "-c", "while :; do date +%N#; sleep 0.02; done"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout.decode()
        words = said[said.find("MOSH CONNECT"):].split()
        if len(words) < 4:
            say(f"mosh: {said[-200:]}")
            return None
        argv = inside(1, *env, "MOSH_KEY=" + words[3], argv[0].replace("server", "client"), "10.79.0.1", words[2])
    main_, end = os.openpty()
    fcntl.ioctl(end, 0x5414, struct.pack("HHHH", 24, 80, 0, 0))  # TIOCSWINSZ
    p = subprocess.Popen(argv, stdin=end, stdout=end, stderr=subprocess.DEVNULL, start_new_session=True)
    os.close(end)
    came = [0.0]

    def read():
        # mosh's own message about the silence is no byte of the service.
        sign = b"#" if name == "mosh" else b"."
        try:
            while part := os.read(main_, 65536):
                if sign in part:
                    came[0] = came[0] or time.monotonic()
        except OSError:
            pass

    threading.Thread(target=read, daemon=True).start()
    try:
        began = time.monotonic()
        while not came[0]:
            # autossh makes its session again after pauses of its own.
            if time.monotonic() > began + 60:
                say(f"{name}: nothing comes")
                return None
            time.sleep(0.01)
        time.sleep(0.5)
        down = how == "its link is down"
        if down:
            road.link("down")
        road.silent = True
        time.sleep(away)
        came[0] = 0.0
        back, road.silent = time.monotonic(), False
        if down:
            road.link("up")
            back = time.monotonic()
        while not came[0]:
            if time.monotonic() > back + 40:
                return None
            time.sleep(0.001)
        return came[0] - back
    finally:
        road.silent = False
        os.killpg(p.pid, signal.SIGKILL)
        p.wait()
        os.close(main_)


def before():
    """Two builds of fived side by side, in what its speed is; OLD_FIVED is the other one."""
    old = os.environ.get("OLD_FIVED")
    if not old:
        return say("before: OLD_FIVED names no other build of fived: left out")
    name = "fived before"

    def compare(title, unit, measure, pair, scale=1.0, most=False):
        now, then = pair
        rows = [Row(then.name, measure(then)), Row(now.name, measure(now), then.name, 1.05 if most else 0.95, most)]
        table(f"two builds: {title}", unit, rows, 3 * ROUNDS, scale)

    in_band, mux = ("-P", "SSL", "-I"), ("-P", "MULTIPLEX", "-I")
    starts = lambda clients: lambda s: load(s, "exec", "tiny", END, clients=clients)
    port = lambda clients: lambda s: port_load(s, clients)
    dgram = lambda clients: lambda s: took(s, "rate", LOAD, "-h", s.address, "-p", "7200", "-c", clients, "-d", SECS, "-w", "0.1", "dgram")
    hands = lambda at, *a: lambda s: tls(s, at, "tls-hs", "-c", "8", "-d", SECS, "-w", "0.1", "-e", END, *a, key="rate")
    stream = lambda s: tls(s, 1, "yamux-lat", "-c", "1", "-d", SECS, "-w", "0.1", *mux, "tiny", "-e", END, key="p50_us")
    with Up(fived(), fived(name, "127.0.1.105", program=old)) as pair:
        if not all(pair):
            return
        compare(f"HELP, {CLIENTS} clients", "requests/s", lambda s: load(s, "help"), pair)
        for n in (CLIENTS, "1"):
            compare(f"starts by name, clients: {n}", "starts/s", starts(n), pair)
            compare(f"starts at a port, clients: {n}", "starts/s", port(n), pair)
            compare(f"dgram wait, clients: {n}", "answers/s", dgram(n), pair)
        compare("new TLS sessions with a start, 8 clients", "sessions/s", hands(1, *in_band, "tiny"), pair)
        compare("the same at a tls_port", "sessions/s", hands(6443), pair)
        compare("a new stream", "us", stream, pair, most=True)
        compare("bytes of one TLS service", "MB/s", lambda s: tls(s, 1, "tls-bulk", "-n", str(BULK), *in_band, "src", key="bytes_per_s"), pair, 1e-6)
        for n, src in (("1", "src"), ("100", "src100")):
            compare(f"bytes of a session, streams: {n}", "MB/s", lambda s: tls(s, 1, "yamux-bulk", "-c", n, "-n", str(BULK), *mux, src, key="bytes_per_s"), pair, 1e-6)
    line, src = bare("line", "127.0.1.20", port=7003), bare(f"src {BULK}", "127.0.1.20", port=7001)
    with Up(line, src, redirects()[0], redirects(old, "127.0.1.34", name)[0]) as (_, _, *pair):
        many = lambda s: took(s, "rate", LOAD, "-h", s.address, "-p", "7101", "-c", CLIENTS, "-d", SECS, "-w", "0.1", "plain", END)
        compare(f"redirected connections, {CLIENTS} clients", "connections/s", many, pair)
        compare("redirected bytes", "MB/s", lambda s: took(s, "bytes_per_s", LOAD, "-h", s.address, "-p", "7102", "bulk", "-", str(BULK)), pair, 1e-6)


GROUPS = {"help": help_, "start": start, "storm": storm, "silent": silent, "table": big_table, "ports": ports, "dgram": datagrams, "proxy": proxy, "metrics": metrics, "redirect": redirect, "tls": tls_, "mux": mux, "five": five, "resume": resume, "cuts": cuts, "offer": offered, "return": returns, "before": before}


def main():
    chosen = sys.argv[1:] or list(GROUPS)
    if wrong := [g for g in chosen if g not in GROUPS]:
        sys.exit(f"bench: no such group: {' '.join(wrong)} (there are {' '.join(GROUPS)})")
    began = time.monotonic()
    print(f"fived's benchmarks, {time.strftime('%F')}, Linux {os.uname().release}, {os.cpu_count()} processors, {ROUNDS} rounds of {SECS} s")
    for g in chosen:
        try:
            GROUPS[g]()
        except (OSError, ValueError, StopIteration) as e:
            say(f"{g}: {type(e).__name__} {e}")
    print(f"\n{time.monotonic() - began:.0f} s; {MISSED} of the musts were missed here")
    sys.exit(0 if ANY else 1)


main()
