# A client of a listener of this net process: its own socket, and net's.
import os, socket, ctypes
libc = ctypes.CDLL(None)
def client(pid, source='127.0.0.1'):
    get = lambda n: socket.socket(fileno=libc.syscall(438, os.pidfd_open(pid), int(n), 0))
    names = lambda: [n for n in os.listdir(f'/proc/{pid}/fd') if os.readlink(f'/proc/{pid}/fd/{n}').startswith('socket:')]
    all = [s for s in map(get, names()) if s.family != socket.AF_UNIX]
    listener = [s for s in all if s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)][0]
    c = socket.create_connection(listener.getsockname()[:2], source_address=(source, 0))
    while True:
        for n in names():
            try:
                s = get(n)
                if s.family == c.family and s.getpeername() == c.getsockname():
                    return c, s
            except OSError:
                pass
