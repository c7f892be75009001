//! The wire between our client and server, on each stream: 'E' + u64 = echo these nine bytes and
//! close; 'S' + u64 = send that many zero bytes and close. go/yamuxgo speaks the same.
//! With -P PRE a TCPMUX name is asked for in the clear before yamux starts (e.g. MULTIPLEX); with
//! -I NAME each stream instead sends "NAME\r\n" and reads to EOF (-e EXPECT must end the answer).
use crate::{Opt, cpu, report, us10};
use futures::future::poll_fn;
use futures::io::{AsyncReadExt, AsyncWriteExt};
use std::cell::RefCell;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;
use tokio_util::compat::TokioAsyncReadCompatExt;
use yamux::{Config, Connection, Mode, Stream};

fn cfg() -> Config {
    let mut c = Config::default();
    c.set_max_num_streams(2048);
    c
}

fn rt<F: std::future::Future<Output = ()>>(f: F) {
    let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&rt, f);
}

async fn handle(mut s: Stream) -> std::io::Result<()> {
    let mut q = [0u8; 9];
    s.read_exact(&mut q).await?;
    let n = u64::from_be_bytes(q[1..].try_into().unwrap());
    if q[0] == b'E' {
        s.write_all(&q).await?;
    } else {
        let z = vec![0u8; 64 * 1024];
        let mut left = n;
        while left > 0 {
            let k = left.min(z.len() as u64) as usize;
            s.write_all(&z[..k]).await?;
            left -= k as u64;
        }
    }
    s.close().await
}

pub fn serve(o: Opt) {
    rt(async move {
        let l = TcpListener::bind((o.host.as_str(), o.port)).await.expect("bind");
        loop {
            let Ok((s, _)) = l.accept().await else { continue };
            s.set_nodelay(true).unwrap();
            tokio::task::spawn_local(async move {
                let mut c = Connection::new(s.compat(), cfg(), Mode::Server);
                while let Some(Ok(st)) = poll_fn(|cx| c.poll_next_inbound(cx)).await {
                    tokio::task::spawn_local(async move {
                        let _ = handle(st).await;
                    });
                }
            });
        }
    });
}

type Req = oneshot::Sender<Stream>;

async fn client(o: &Opt) -> mpsc::UnboundedSender<Req> {
    let mut s = TcpStream::connect((o.host.as_str(), o.port)).await.expect("connect");
    s.set_nodelay(true).unwrap();
    if let Some(p) = &o.pre {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        s.write_all(format!("{p}\r\n").as_bytes()).await.unwrap();
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            line.push(s.read_u8().await.expect("no answer line"));
        }
        assert_eq!(line[0], b'+', "{}", String::from_utf8_lossy(&line));
    }
    let mut c = Connection::new(s.compat(), cfg(), Mode::Client);
    let (tx, mut rx) = mpsc::unbounded_channel::<Req>();
    tokio::task::spawn_local(async move {
        let mut want: Option<Req> = None;
        poll_fn(move |cx| {
            loop {
                if want.is_none() {
                    match rx.poll_recv(cx) {
                        Poll::Ready(Some(r)) => want = Some(r),
                        Poll::Ready(None) => return Poll::Ready(()),
                        Poll::Pending => {}
                    }
                }
                if want.is_some() {
                    match c.poll_new_outbound(cx) {
                        Poll::Ready(Ok(s)) => {
                            let _ = want.take().unwrap().send(s);
                            continue;
                        }
                        Poll::Ready(Err(e)) => panic!("yamux open: {e}"),
                        Poll::Pending => {}
                    }
                }
                match c.poll_next_inbound(cx) {
                    Poll::Ready(Some(Ok(_))) => continue,
                    Poll::Ready(Some(Err(e))) => panic!("yamux: {e}"),
                    Poll::Ready(None) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await
    });
    tx
}

async fn open(tx: &mpsc::UnboundedSender<Req>) -> Stream {
    let (a, b) = oneshot::channel();
    tx.send(a).ok().expect("driver gone");
    b.await.expect("driver gone")
}

pub fn lat(o: Opt) {
    rt(async move {
        let tx = client(&o).await;
        let (lat, errs) = (Rc::new(RefCell::new(Vec::new())), Rc::new(RefCell::new(0u64)));
        let c0 = cpu();
        let t_on = Instant::now() + Duration::from_secs_f64(o.warm);
        let t_off = t_on + Duration::from_secs_f64(o.secs);
        let mut js = Vec::new();
        for _ in 0..o.c {
            let (tx, lat, errs, o) = (tx.clone(), lat.clone(), errs.clone(), o.clone());
            js.push(tokio::task::spawn_local(async move {
                let mut q = *b"E12345678";
                let mut rest = Vec::new();
                while Instant::now() < t_off {
                    let t = Instant::now();
                    let mut s = open(&tx).await;
                    q[8] = q[8].wrapping_add(1);
                    rest.clear();
                    let line = o.inner.as_ref().map(|i| format!("{i}\r\n"));
                    let ask = line.as_ref().map_or(&q[..], |l| l.as_bytes());
                    let mut ok = s.write_all(ask).await.is_ok() && s.read_to_end(&mut rest).await.is_ok();
                    ok &= if line.is_some() { !rest.is_empty() && rest.ends_with(&o.expect) } else { rest == q };
                    let _ = s.close().await;
                    let e = Instant::now();
                    if !ok {
                        *errs.borrow_mut() += 1;
                    } else if e >= t_on && e <= t_off {
                        lat.borrow_mut().push(us10(t));
                    }
                }
            }));
        }
        for j in js {
            j.await.unwrap();
        }
        let v = lat.borrow().clone();
        let e = *errs.borrow();
        report(v, e, o.secs, cpu() - c0, "");
    });
}

pub fn bulk(o: Opt) {
    rt(async move {
        let tx = client(&o).await;
        let each = o.n / o.c as u64;
        let c0 = cpu();
        let t = Instant::now();
        let mut js = Vec::new();
        for _ in 0..o.c {
            let (tx, inner) = (tx.clone(), o.inner.clone());
            js.push(tokio::task::spawn_local(async move {
                let mut s = open(&tx).await;
                let mut q = [b'S'; 9];
                q[1..].copy_from_slice(&each.to_be_bytes());
                match inner {
                    Some(i) => s.write_all(format!("{i}\r\n").as_bytes()).await.unwrap(),
                    None => s.write_all(&q).await.unwrap(),
                }
                let (mut got, mut buf) = (0u64, vec![0u8; 256 * 1024]);
                loop {
                    match s.read(&mut buf).await {
                        Ok(0) | Err(_) => break,
                        Ok(n) => got += n as u64,
                    }
                }
                let _ = s.close().await;
                got
            }));
        }
        let mut got = 0;
        for j in js {
            got += j.await.unwrap();
        }
        let s = t.elapsed().as_secs_f64();
        println!(
            "{{\"bytes\":{got},\"ok\":{},\"secs\":{s:.4},\"bytes_per_s\":{:.0},\"client_cpu_s\":{:.4}}}",
            got >= each * o.c as u64,
            got as f64 / s,
            cpu() - c0
        );
    });
}
