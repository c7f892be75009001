//! A multiplexing client for plain blocking tests: the yamux crate over a TCP connection, TLS, or
//! half of a socket pair.
//!
//! One thread drives the crate's connection; a [`Stream`] reads and writes like a socket. No wait
//! is longer than [`TIMEOUT`]. `yamux_raw.rs` sends frames that no client sends.

#![allow(dead_code)] // Each test file uses its own part of this.

use futures::{AsyncRead, AsyncWrite};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustls::{ClientConnection, StreamOwned};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};
use yamux::{Config, Connection, Mode};

const TIMEOUT: Duration = Duration::from_secs(60);
/// How long a client takes to say good-bye.
const FAREWELL: Duration = Duration::from_secs(2);

/// What a session can run over.
pub trait Transport: Read + Write + Send + Unpin + 'static {
    fn socket(&self) -> BorrowedFd<'_>;
    fn set_blocking(&self, blocking: bool);
    /// No more bytes will be written.
    fn half_close(&mut self) -> io::Result<()>;
}

macro_rules! transports {
    ($($socket:ty),*) => {$(
        impl Transport for $socket {
            fn socket(&self) -> BorrowedFd<'_> {
                self.as_fd()
            }
            fn set_blocking(&self, blocking: bool) {
                self.set_nonblocking(!blocking).expect("nonblocking");
            }
            fn half_close(&mut self) -> io::Result<()> {
                self.shutdown(Shutdown::Write)
            }
        }
    )*};
}

transports!(TcpStream, UnixStream);

impl Transport for StreamOwned<ClientConnection, TcpStream> {
    fn socket(&self) -> BorrowedFd<'_> {
        self.sock.as_fd()
    }
    fn set_blocking(&self, blocking: bool) {
        self.sock.set_nonblocking(!blocking).expect("nonblocking");
    }
    fn half_close(&mut self) -> io::Result<()> {
        self.conn.send_close_notify();
        self.flush()
    }
}

/// Somebody who waits for a stream.
type Opening = Sender<Result<yamux::Stream, String>>;

/// A session.
pub struct Client {
    opens: Sender<Opening>,
    bell: Arc<Bell>,
    driver: Option<JoinHandle<String>>,
}

impl Client {
    /// Begins a session on a connection that has just heard `+ Success`.
    pub fn new(transport: impl Transport) -> Client {
        Client::begin(transport, None)
    }

    /// The same of a client that takes streams which the server opens.
    pub fn accepting(transport: impl Transport) -> (Client, Receiver<Stream>) {
        let (taken, inbound) = channel();
        (Client::begin(transport, Some(taken)), inbound)
    }

    fn begin(transport: impl Transport, inbound: Option<Sender<Stream>>) -> Client {
        transport.set_blocking(false);
        let (ring, heard) = UnixStream::pair().expect("pair");
        for end in [&ring, &heard] {
            end.set_nonblocking(true).expect("nonblocking");
        }
        let bell = Arc::new(Bell(ring));
        let waker = Waker::from(bell.clone());
        let (opens, orders) = channel();
        let driver = thread::spawn(move || drive(transport, &waker, &heard, &orders, inbound));
        Client { opens, bell, driver: Some(driver) }
    }

    /// Opens a stream. The crate says so to the server with the first byte that is written.
    pub fn try_open(&self) -> Result<Stream, String> {
        let (answer, wait) = channel();
        self.opens.send(answer).map_err(|_| "the session has ended".to_string())?;
        self.bell.ring();
        let stream = wait.recv_timeout(TIMEOUT).map_err(|e| e.to_string())??;
        Ok(Stream::new(stream))
    }

    #[track_caller]
    pub fn open(&self) -> Stream {
        self.try_open().expect("a stream")
    }

    /// Opens a stream and sends a request.
    #[track_caller]
    pub fn ask(&self, request: impl AsRef<[u8]>) -> Stream {
        let mut stream = self.open();
        stream.write_all(request.as_ref()).expect("request");
        stream
    }

    /// Has the session ended by itself?
    pub fn ended(&self) -> bool {
        self.driver.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits until the session ends by itself; why it did.
    pub fn end(mut self) -> String {
        let end = Instant::now() + TIMEOUT;
        while !self.ended() {
            assert!(Instant::now() < end, "the session does not end");
            thread::sleep(Duration::from_millis(5));
        }
        self.driver.take().map_or_else(String::new, |d| d.join().expect("driver"))
    }
}

/// Go-away, and the end of the connection.
impl Drop for Client {
    fn drop(&mut self) {
        self.opens = channel().0;
        self.bell.ring();
        if let Some(driver) = self.driver.take() {
            let _ = driver.join();
        }
    }
}

/// A stream; dropped without [`Stream::finish`] it is reset.
pub struct Stream {
    /// Locked for a look at a time, never while anybody waits.
    stream: Arc<Mutex<yamux::Stream>>,
    waiting: Arc<Waiting>,
    finished: bool,
}

impl Stream {
    fn new(stream: yamux::Stream) -> Stream {
        let stream = Arc::new(Mutex::new(stream));
        Stream { stream, waiting: Arc::default(), finished: false }
    }

    /// The same stream, for another thread: one may read while the other writes.
    pub fn both(self) -> (Stream, Stream) {
        let (stream, waiting) = (self.stream.clone(), self.waiting.clone());
        (Stream { stream, waiting, finished: true }, self)
    }

    fn wait<T>(
        &self,
        mut so: impl FnMut(Pin<&mut yamux::Stream>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> io::Result<T> {
        wait(&self.waiting, |cx| so(Pin::new(&mut *self.stream.lock().expect("stream")), cx))
    }

    /// FIN: the other half goes on.
    pub fn finish(&mut self) -> &mut Stream {
        // The crate would say it twice.
        if !std::mem::replace(&mut self.finished, true) {
            self.wait(|s, cx| s.poll_close(cx)).expect("finish");
        }
        self
    }

    /// Everything up to the end, or to a reset: the crate does not tell them apart.
    #[track_caller]
    pub fn read_all(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        self.read_to_end(&mut all).expect("read");
        all
    }

    #[track_caller]
    pub fn expect(&mut self, wanted: impl AsRef<[u8]>) -> &mut Stream {
        let mut got = vec![0; wanted.as_ref().len()];
        self.read_exact(&mut got).expect("read");
        assert_eq!(got.escape_ascii().to_string(), wanted.as_ref().escape_ascii().to_string());
        self
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.wait(|s, cx| s.poll_read(cx, buffer))
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.wait(|s, cx| s.poll_write(cx, bytes))
    }
    fn flush(&mut self) -> io::Result<()> {
        self.wait(|s, cx| s.poll_flush(cx))
    }
}

/// The threads that have waited for a stream. All are woken: where the crate has no room for what a
/// stream sends, it remembers one waker of the stream, the last one, be it of a reader or a writer.
#[derive(Default)]
struct Waiting(Mutex<Vec<Thread>>);

impl Wake for Waiting {
    fn wake(self: Arc<Self>) {
        self.0.lock().expect("threads").iter().for_each(Thread::unpark);
    }
}

/// Waits in this thread until it is so.
fn wait<T>(
    waiting: &Arc<Waiting>,
    mut so: impl FnMut(&mut Context<'_>) -> Poll<io::Result<T>>,
) -> io::Result<T> {
    let here = thread::current();
    let mut all = waiting.0.lock().expect("threads");
    if !all.iter().any(|t| t.id() == here.id()) {
        all.push(here);
    }
    drop(all);
    let waker = Waker::from(waiting.clone());
    let end = Instant::now() + TIMEOUT;
    loop {
        if let Poll::Ready(done) = so(&mut Context::from_waker(&waker)) {
            return done;
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        thread::park_timeout(left);
    }
}

/// Wakes the driver out of poll(2).
struct Bell(UnixStream);

impl Bell {
    fn ring(&self) {
        // A full bell has been rung.
        let _ = (&self.0).write(&[0]);
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }
}

/// The transport as the crate wants it; whoever would block waits in poll(2).
struct Async<T> {
    transport: T,
    full: Arc<AtomicBool>,
}

fn ready<T>(done: io::Result<T>) -> Poll<io::Result<T>> {
    match done {
        Err(e) if e.kind() == ErrorKind::WouldBlock => Poll::Pending,
        done => Poll::Ready(done),
    }
}

impl<T: Transport> Async<T> {
    fn written<R>(&self, done: io::Result<R>) -> Poll<io::Result<R>> {
        let done = ready(done);
        self.full.store(done.is_pending(), Relaxed);
        done
    }
}

impl<T: Transport> AsyncRead for Async<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        ready(self.transport.read(buffer))
    }
}

impl<T: Transport> AsyncWrite for Async<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let done = self.transport.write(bytes);
        self.written(done)
    }
    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = self.transport.flush();
        self.written(done)
    }
    fn poll_close(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = self.transport.half_close();
        self.written(done)
    }
}

/// Runs the session until it ends, or nobody wants it any more; why it ended.
fn drive(
    transport: impl Transport,
    waker: &Waker,
    heard: &UnixStream,
    orders: &Receiver<Opening>,
    mut inbound: Option<Sender<Stream>>,
) -> String {
    let full = Arc::new(AtomicBool::new(false));
    let socket = transport.socket().try_clone_to_owned().expect("dup");
    let mut connection =
        Connection::new(Async { transport, full: full.clone() }, Config::default(), Mode::Client);
    let mut cx = Context::from_waker(waker);
    let (mut opening, mut leaving) = (VecDeque::new(), None);
    loop {
        loop {
            match orders.try_recv() {
                Ok(answer) => opening.push_back(answer),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    leaving.get_or_insert_with(|| Instant::now() + FAREWELL);
                    break;
                }
            }
        }
        if let Some(end) = leaving {
            if connection.poll_close(&mut cx).is_ready() || Instant::now() > end {
                return "left".into();
            }
        } else if let Some(end) = advance(&mut connection, &mut cx, &mut opening, &mut inbound) {
            return end;
        }
        let write = if full.load(Relaxed) { PollFlags::POLLOUT } else { PollFlags::empty() };
        let mut fds = [
            PollFd::new(socket.as_fd(), PollFlags::POLLIN | write),
            PollFd::new(heard.as_fd(), PollFlags::POLLIN),
        ];
        let _ = poll(&mut fds, PollTimeout::from(50u8));
        while matches!({ heard }.read(&mut [0; 64]), Ok(1..)) {}
    }
}

/// Does what can be done; why the session ended, if it did.
fn advance<T: Transport>(
    connection: &mut Connection<Async<T>>,
    cx: &mut Context<'_>,
    opening: &mut VecDeque<Opening>,
    inbound: &mut Option<Sender<Stream>>,
) -> Option<String> {
    while !opening.is_empty()
        && let Poll::Ready(stream) = connection.poll_new_outbound(cx)
        && let Some(answer) = opening.pop_front()
    {
        let _ = answer.send(stream.map_err(|e| e.to_string()));
    }
    loop {
        match (connection.poll_next_inbound(cx), &inbound) {
            (Poll::Pending, _) => return None,
            (Poll::Ready(None), _) => return Some("closed".into()),
            (Poll::Ready(Some(Err(e))), _) => return Some(e.to_string()),
            (Poll::Ready(Some(Ok(_))), None) => return Some("the server opened a stream".into()),
            // Nobody waits for it any more: it is reset.
            (Poll::Ready(Some(Ok(stream))), Some(taken)) => drop(taken.send(Stream::new(stream))),
        }
    }
}
