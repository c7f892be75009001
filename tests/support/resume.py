"""A client of RESUME, written from fived-session(7): records below, yamux above.

resume.py PORT BYTES CUTS: sends so many bytes through the service `cat`, cuts the connection so
often, at any place, and checks that every byte comes back once. It says "ID CUTS SHA256" at its end.
"""

import base64, ctypes, hashlib, hmac, os, random, socket, ssl, struct, sys, _ssl

LABEL = b"EXPORTER-fived-resume"
DATA, WINDOW, PING, GO_AWAY = 0, 1, 2, 3  # yamux's types of frames
SYN, ACK, FIN, RST = 1, 2, 4, 8  # and flags


def exporter(tls):
    """RFC 8446, 7.5. Python's ssl has no such function, so OpenSSL's own is called."""
    libssl = ctypes.CDLL(_ssl.__file__)
    # The object begins with a count, a type and the socket; then there is the SSL of OpenSSL.
    handle = ctypes.c_void_p.from_address(id(tls._sslobj) + 24)
    key = ctypes.create_string_buffer(32)
    done = libssl.SSL_export_keying_material(
        handle, key, ctypes.c_size_t(32), LABEL, ctypes.c_size_t(len(LABEL)), b"",
        ctypes.c_size_t(0), ctypes.c_int(1))
    assert done == 1, "no exporter"
    return key.raw


class Session:
    """A session that outlives its connections."""

    def __init__(self, port):
        self.port, self.received, self.kept, self.first = port, 0, b"", 0
        self.connect()
        self.tls.sendall(b"new\r\n")
        self.id, self.seconds = self.line().split()
        self.key = exporter(self.tls)

    def connect(self):
        tcp = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self.tls = context.wrap_socket(tcp)
        self.tls.sendall(b"RESUME\r\n")
        assert self.line() == "+ Success"

    def line(self):
        line = b""
        while not line.endswith(b"\n"):
            byte = self.tls.recv(1)
            assert byte, line
            line += byte
        return line.decode().rstrip()

    def resume(self):
        self.connect()
        fresh = base64.b64encode(exporter(self.tls)).decode()
        text = f"fived resume 1\n{self.id}\n{self.received}\n{fresh}\n"
        proof = base64.b64encode(hmac.digest(self.key, text.encode(), "sha256")).decode()
        self.tls.sendall(f"{self.id} {self.received} {proof}\r\n".encode())
        word, had = self.line().split()
        assert word == "Resumed"
        self.acknowledged(int(had))
        if self.kept:
            self.record(0, self.kept)

    def record(self, kind, data):
        for at in range(0, max(len(data), 1), 65535):
            part = data[at:at + 65535]
            self.tls.sendall(bytes([kind]) + len(part).to_bytes(3, "big") + part)

    def acknowledged(self, had):
        assert self.first <= had <= self.first + len(self.kept), "the server counts wrongly"
        self.kept, self.first = self.kept[had - self.first:], had

    def send(self, data, whole=True):
        """Not whole: the connection breaks within the record."""
        self.kept += data
        if whole:
            return self.record(0, data)
        record = b"\0" + len(data).to_bytes(3, "big") + data
        self.tls.sendall(record[:random.randrange(len(record))])

    def exactly(self, n):
        data = b""
        while len(data) < n:
            more = self.tls.recv(n - len(data))
            assert more, "the server ended the connection"
            data += more
        return data

    def receive(self):
        """Data, after whatever else has come."""
        while True:
            head = self.exactly(4)
            data = self.exactly(int.from_bytes(head[1:], "big"))
            if head[0] == 1:
                self.acknowledged(int.from_bytes(data, "big"))
                continue
            assert head[0] == 0, "the session ended"
            self.received += len(data)
            self.record(1, struct.pack(">Q", self.received))
            return data

    def end(self):
        self.record(2, b"")
        socket.socket.shutdown(self.tls, socket.SHUT_WR)
        while self.tls.recv(65536):
            pass
        self.tls.close()

    def cut(self, hard):
        if hard:
            self.tls.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.tls.close()


class Stream:
    """The only yamux stream of a session."""

    def __init__(self, session, request):
        self.session, self.frames, self.came = session, b"", b""
        session.send(self.frame(DATA, SYN, request))

    @staticmethod
    def frame(kind, flags, data=b"", length=None, stream=1):
        length = len(data) if length is None else length
        return struct.pack(">BBHII", 0, kind, flags, stream, length) + data

    def receive(self):
        self.frames += self.session.receive()
        while len(self.frames) >= 12:
            _, kind, flags, stream, length = struct.unpack(">BBHII", self.frames[:12])
            body = length if kind == DATA else 0
            if len(self.frames) < 12 + body:
                return
            self.came += self.frames[12:12 + body]
            self.frames = self.frames[12 + body:]
            assert kind != GO_AWAY and not flags & (FIN | RST), (kind, flags)
            if body:
                self.session.send(self.frame(WINDOW, 0, length=body))
            if kind == PING and flags & SYN:
                self.session.send(self.frame(PING, ACK, length=length, stream=0))


def main(port, total, cuts):
    session = Session(port)
    stream = Stream(session, b"cat\r\n")
    data = os.urandom(total)
    at, done, wanted = 0, 0, b"+Go\r\n" + data
    while len(stream.came) < len(wanted):
        if at < total and at + 5 - len(stream.came) < 100_000:
            part = data[at:at + random.randrange(1, 40_000)]
            at += len(part)
            frame = Stream.frame(DATA, 0, part)
            if done < cuts and at >= (done + 1) * total // (cuts + 1):
                done += 1
                how = random.randrange(4)
                session.send(frame, whole=how < 2)
                if how == 0:  # the next connection takes over
                    old = session.tls
                    session.resume()
                    old.close()
                else:
                    session.cut(hard=how == 1)
                    session.resume()
                continue
            session.send(frame)
        else:
            stream.receive()
    assert stream.came == wanted, "other bytes came back"
    session.end()
    print(session.id, done, hashlib.sha256(stream.came[5:]).hexdigest() == hashlib.sha256(data).hexdigest())


main(*map(int, sys.argv[1:]))
