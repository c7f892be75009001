//! A client's engine, and a server's with one.

use super::*;

/// Passes the control frames of each to the other until neither has any; returns what they caused.
fn talk(client: &mut Mux, server: &mut Mux) -> (Vec<String>, Vec<String>) {
    let (mut of_client, mut of_server) = (vec![], vec![]);
    while client.control_queued() + server.control_queued() > 0 {
        let (mut to_server, mut to_client) = (vec![], vec![]);
        client.take_control(&mut to_server);
        server.take_control(&mut to_client);
        of_server.extend(receive_all(server, &to_server));
        of_client.extend(receive_all(client, &to_client));
    }
    (of_client, of_server)
}

#[test]
fn a_client_and_a_server_understand_each_other() {
    let (mut client, mut server) =
        (Mux::client(Duration::from_secs(30), NOW), Mux::new(Duration::from_secs(30), 1, NOW));
    let id = client.open(NOW).unwrap();
    assert_eq!(talk(&mut client, &mut server).1, ["1 opened"]);
    assert!(client.is_acknowledged(id));
    let header = client.data(id, 3);
    assert_eq!(receive_all(&mut server, &[&header[..], b"abc"].concat()), ["1: abc"]);
    let header = server.data(id, 2);
    assert_eq!(receive_all(&mut client, &[&header[..], b"xy"].concat()), ["1: xy"]);
    client.finish(id);
    assert_eq!(talk(&mut client, &mut server).1, ["1 finished"]);
    // One more than the server accepts.
    let second = client.open(NOW).unwrap();
    assert_eq!(talk(&mut client, &mut server).0, [format!("{second} reset")]);
    server.finish(id);
    assert_eq!(talk(&mut client, &mut server).0, ["1 finished"]);
    assert_eq!((client.open_streams(), server.open_streams()), (0, 0));
    client.ping(NOW);
    talk(&mut client, &mut server);
    assert!(!client.is_acknowledged(StreamId(5)));
    server.go_away(NOW);
    assert_eq!(talk(&mut client, &mut server).0, ["go-away 0"]);
    assert_eq!(client.open(NOW), None);
}

#[test]
fn a_server_opens_streams_for_a_client_that_expects_them() {
    let mut client = Mux::client(Duration::from_secs(30), NOW);
    let events = |client: &mut Mux, n| receive_all(client, &frame(Kind::Window, SYN, n, 0));
    assert_eq!(events(&mut client, 2), ["a stream opened by the server"]);
    let mut client = Mux::client(Duration::from_secs(30), NOW);
    client.set_max_streams(1);
    assert_eq!(events(&mut client, 1), ["a stream number that is not the peer's"]);

    let (mut client, mut server) = (Mux::client(Duration::from_secs(30), NOW), session());
    client.set_max_streams(3);
    let asked = client.open(NOW).unwrap();
    let ids: Vec<_> = (0..5).map(|_| server.open(NOW)).collect();
    assert_eq!(
        ids,
        [Some(StreamId(2)), Some(StreamId(4)), Some(StreamId(6)), Some(StreamId(8)), None]
    );
    let (of_client, of_server) = talk(&mut client, &mut server);
    assert_eq!(of_client, ["2 opened", "4 opened", "6 opened"]);
    // One more than the client accepts; that client's own are counted apart. Nobody has taken the
    // others yet.
    assert_eq!(of_server, ["1 opened", "8 reset"]);
    assert!(!server.is_acknowledged(StreamId(2)));
    for n in [2, 4, 6, 2] {
        client.accept(StreamId(n));
    }
    assert_eq!(talk(&mut client, &mut server).1, ["2 accepted", "4 accepted", "6 accepted"]);
    assert!(server.is_acknowledged(StreamId(2)) && client.is_acknowledged(asked));
    let header = client.data(StreamId(2), 2);
    assert_eq!(receive_all(&mut server, &[&header[..], b"hi"].concat()), ["2: hi"]);
    let header = server.data(StreamId(2), 2);
    assert_eq!(receive_all(&mut client, &[&header[..], b"ho"].concat()), ["2: ho"]);
    server.finish(StreamId(2));
    client.finish(StreamId(2));
    client.reset(StreamId(4), NOW);
    let (of_client, of_server) = talk(&mut client, &mut server);
    assert_eq!(
        (of_client, of_server),
        (vec!["2 finished".into()], vec!["2 finished".into(), "4 reset".into()])
    );
    assert_eq!((client.open_streams(), server.open_streams()), (2, 2));
    // Its numbers are not used again, and those of streams that never were are nobody's.
    assert_eq!(server.open(NOW), Some(StreamId(10)));
    assert_eq!(receive_all(&mut server, &data(0, 4, b"late")), [""; 0]);
    assert_eq!(receive_all(&mut server, &data(FIN, 2, b"")), ["data or an end after the end"]);
    let mut server = session();
    server.open(NOW);
    for bytes in [data(0, 4, b"x"), frame(Kind::Window, ACK, 4, 0), data(SYN, 2, b"")] {
        let mut server = session();
        server.open(NOW);
        assert_eq!(receive_all(&mut server, &bytes), ["a stream number that is not the peer's"]);
    }
}

#[test]
fn an_acknowledgement_may_come_with_data_and_is_told_once() {
    let mut server = session();
    server.open(NOW);
    let bytes = [data(ACK, 2, b"hi"), frame(Kind::Window, ACK, 2, 9)].concat();
    assert_eq!(receive_all(&mut server, &bytes), ["2 accepted", "2: hi"]);
    let id = server.open(NOW).unwrap();
    assert_eq!(receive_all(&mut server, &data(ACK | RST, 4, b"")), [format!("{id} reset")]);
    let id = server.open(NOW).unwrap();
    let all = receive_all(&mut server, &data(ACK | FIN, 6, b""));
    assert_eq!(all, [format!("{id} accepted"), format!("{id} finished")]);
}

#[test]
fn after_go_away_a_server_still_brings_clients() {
    let (mut client, mut server) = (Mux::client(Duration::from_secs(30), NOW), session());
    client.set_max_streams(4);
    client.open(NOW).unwrap();
    server.go_away(NOW);
    talk(&mut client, &mut server);
    assert_eq!(client.open(NOW), None);
    assert!(server.open(NOW).is_some());
    assert_eq!(talk(&mut client, &mut server).0, ["2 opened"]);
    client.accept(StreamId(2));
    assert_eq!(talk(&mut client, &mut server).1, ["2 accepted"]);
    // Not to one that has gone away itself.
    client.go_away(NOW);
    let crossed = server.open(NOW);
    let (of_client, of_server) = talk(&mut client, &mut server);
    assert_eq!(crossed, Some(StreamId(4)));
    assert_eq!((of_client, of_server), (vec![], vec!["go-away 0".into(), "4 reset".into()]));
    assert_eq!(server.open(NOW), None);
}

#[test]
fn a_clients_numbers_come_to_an_end() {
    let mut client = Mux::client(Duration::from_secs(30), NOW);
    client.next = Some(u32::MAX);
    assert_eq!(client.open(NOW), Some(StreamId(u32::MAX)));
    assert!(client.open(NOW).is_none() && client.is_going_away());
}

#[test]
fn a_client_cuts_a_stream_also_after_its_own_end() {
    let (mut client, mut server) = (Mux::client(Duration::from_secs(30), NOW), session());
    let id = client.open(NOW).unwrap();
    client.finish(id);
    assert_eq!(talk(&mut client, &mut server).1, ["1 opened", "1 finished"]);
    client.reset_at_once(id);
    client.reset_at_once(id);
    assert_eq!(talk(&mut client, &mut server).1, ["1 reset"]);
    assert_eq!((client.open_streams(), server.open_streams()), (0, 0));
    // Data that crossed it does not open the stream again.
    assert!(receive_all(&mut client, &data(0, 1, b"late")).is_empty());
}
