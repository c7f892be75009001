# A client of a listener of this net process, or of the port or path `at`, where it is handed over to net: its own socket, and net's.
import ctypes, fcntl, os, select, socket, struct, threading, time
libc = ctypes.CDLL(None)
def client(pid, source='127.0.0.1', at=None, counts=True):
    pidfd = os.pidfd_open(pid)
    def all():
        # Net closes some of them meanwhile.
        for n in os.listdir(f'/proc/{pid}/fd'):
            try:
                if os.readlink(f'/proc/{pid}/fd/{n}').startswith('socket:'):
                    yield socket.socket(fileno=libc.syscall(438, pidfd, int(n), 0))
            except (OSError, ValueError):
                pass
    internet = [s for s in all() if s.family != socket.AF_UNIX]
    listener = [s for s in internet if s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)][0]
    if isinstance(at, str):
        c = socket.socket(socket.AF_UNIX)
        c.bind(f'{at}.{os.getpid()}')
        c.connect(at)
    else:
        c = socket.create_connection(at or listener.getsockname()[:2], source_address=(source, 0))
    end = time.monotonic() + 60
    while time.monotonic() < end:
        for s in all():
            try:
                if s.family == c.family and s.getpeername() == c.getsockname():
                    os.close(pidfd)
                    if counts:
                        counts_closed(pid)
                    return c, s
            except OSError:
                pass
        time.sleep(0.01)
    raise SystemExit('net has not accepted it')
# Net counts each client's socket that it has handed over and closed (sys::gauges), and no service begins before. What is handed over here is counted ahead.
def counts_closed(pid):
    CLOSED = 31 * 64 + 4 * 8
    page = [line for line in open(f'/proc/{pid}/maps') if 'memfd:fived' in line and 'rw-s' in line][0]
    at = int(page.split('-')[0], 16) + CLOSED
    with open(f'/proc/{pid}/mem', 'r+b', buffering=0) as memory:
        memory.seek(at)
        n = struct.unpack('Q', memory.read(8))[0]
        memory.seek(at)
        memory.write(struct.pack('Q', n + 2))
# The order with the addresses of this connection, as net says them. `peer`: the client's instead.
def addressed(order, s, peer=None):
    def address(a):
        return bytes(10) + b'\xff\xff' + socket.inet_aton(a[0].split(':')[-1]) + struct.pack('<H', a[1])
    said = address(peer or s.getpeername()) + address(s.getsockname())
    return order[:12] + struct.pack('<I', 72) + order[16:32] + said + order[32 + len(said):]
# Keeps the kernel's lock of a socket as long as this process runs: a call on it (`send`, `recv` or `filter`) waits for memory that never comes.
def keep_lock(s, call):
    faults = libc.syscall({'x86_64': 323, 'aarch64': 282}[os.uname().machine], os.O_NONBLOCK)
    libc.mmap.restype = ctypes.c_void_p
    if call != 'filter':
        getattr(libc, call).argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    nothing = libc.mmap(None, 4096, 3, 0x22, -1, ctypes.c_long(0))
    fcntl.ioctl(faults, 0xc018aa3f, bytearray(struct.pack('QQQ', 0xaa, 0, 0)))
    fcntl.ioctl(faults, 0xc020aa00, bytearray(struct.pack('QQQQ', nothing, 4096, 1, 0)))
    SO_ATTACH_FILTER, program = 26, ctypes.create_string_buffer(struct.pack('HxxxxxxQ', 1, nothing))
    attach = lambda: libc.setsockopt(s.fileno(), socket.SOL_SOCKET, SO_ATTACH_FILTER, program, 16)
    wait = attach if call == 'filter' else lambda: getattr(libc, call)(s.fileno(), nothing, 4096, 0)
    threading.Thread(target=wait, daemon=True).start()
    select.select([faults], [], [])
