# What a net process has: its own channel to the parent, channels on which no session has begun, and
# a client of one of its listeners.
import array, ctypes, os, select, socket, time
libc = ctypes.CDLL(None)
def sockets(pid):
    pidfd = os.pidfd_open(pid)
    # It closes some of them meanwhile.
    for n in sorted(map(int, os.listdir(f'/proc/{pid}/fd'))):
        try:
            if os.readlink(f'/proc/{pid}/fd/{n}').startswith('socket:'):
                yield n, socket.socket(fileno=libc.syscall(438, pidfd, n, 0))
        except (OSError, ValueError):
            pass
    os.close(pidfd)
def unused(pid):
    def is_open(s):
        p = select.poll()
        p.register(s, 0)
        return not p.poll(0)
    return [s for n, s in sockets(pid) if n > 3 and s.family == socket.AF_UNIX and s.type == socket.SOCK_SEQPACKET and is_open(s)]
def send(to, order, *fds):
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [f.fileno() for f in fds]))]
    to.sendmsg([order], rights if fds else [])
def client(pid, source='127.0.0.1'):
    all = lambda: (s for _, s in sockets(pid))
    internet = [s for s in all() if s.family != socket.AF_UNIX]
    listener = [s for s in internet if s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)][0]
    c = socket.create_connection(listener.getsockname()[:2], source_address=(source, 0))
    end = time.monotonic() + 60
    while time.monotonic() < end:
        for s in all():
            try:
                if s.family == c.family and s.getpeername() == c.getsockname():
                    return c, s
            except OSError:
                pass
        time.sleep(0.01)
    raise SystemExit('net has not accepted it')
