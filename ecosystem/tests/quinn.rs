//! Tests of QUIC by quinn over netpoll's UDP sockets: transfers, offload, many connections, a
//! client on smol's runtime, a client of another library (aioquic), other executors, std's sockets,
//! deadlines, closing and timers.

#[path = "../../tests/common/mod.rs"]
mod common;

use std::future::poll_fn;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{becomes, child, park_on, run};
use futures_rustls::pki_types::PrivateKeyDer;
use futures_rustls::rustls::RootCertStore;
use netpoll::net::UdpSocket;
use netpoll::task;
use netpoll_quinn::{Runtime, Socket, endpoint};
use quinn::{
    AsyncUdpSocket as _, ClientConfig, Connection, ConnectionError, Endpoint, EndpointConfig, Runtime as _,
    ServerConfig, SmolRuntime, TransportConfig,
};

fn configure() -> (ServerConfig, ClientConfig) {
    let (server, client, _) = configure_with_certificate();
    (server, client)
}

/// Returns the configurations of a server and of a client that trusts the server's certificate, and
/// the certificate in PEM.
fn configure_with_certificate() -> (ServerConfig, ClientConfig, String) {
    let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let private = PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(key.cert.der().clone()).unwrap();
    let server = ServerConfig::with_single_cert(vec![key.cert.der().clone()], private).unwrap();
    (server, ClientConfig::with_root_certificates(Arc::new(roots)).unwrap(), key.cert.pem())
}

async fn socket() -> Arc<UdpSocket> {
    Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap())
}

/// Returns the endpoints of a server and a client, and the sockets of both, in the same order.
async fn endpoints() -> ([Endpoint; 2], [Arc<UdpSocket>; 2]) {
    let (server_config, client_config) = configure();
    let sockets = [socket().await, socket().await];
    let server = endpoint(EndpointConfig::default(), Some(server_config), Arc::clone(&sockets[0])).unwrap();
    let mut client = endpoint(EndpointConfig::default(), None, Arc::clone(&sockets[1])).unwrap();
    client.set_default_client_config(client_config);
    ([server, client], sockets)
}

/// Connects `client` to `server`. Returns the server's end of the connection and the client's end.
async fn connect(server: &Endpoint, client: &Endpoint) -> (Connection, Connection) {
    let accepted = async { server.accept().await.expect("an open endpoint").await.unwrap() };
    let connected = async { client.connect(server.local_addr().unwrap(), "localhost").unwrap().await.unwrap() };
    futures::join!(accepted, connected)
}

/// Echoes the data of every stream until the connection ends.
async fn echo(connection: Connection) {
    while let Ok((mut send, mut receive)) = connection.accept_bi().await {
        let data = receive.read_to_end(usize::MAX).await.unwrap();
        send.write_all(&data).await.unwrap();
        send.finish().unwrap();
    }
}

/// Sends `data` on a new stream, and asserts that the peer sends the same bytes back.
async fn ask(connection: &Connection, data: &[u8]) {
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    let sent = async {
        send.write_all(data).await.unwrap();
        send.finish().unwrap();
    };
    let ((), answer) = futures::join!(sent, receive.read_to_end(usize::MAX));
    assert!(answer.unwrap() == data);
}

fn data(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8).collect()
}

#[test]
fn quic_transfers_both_ways_with_offload() {
    run(async {
        let ([server, client], [socket, _]) = endpoints().await;
        let (served, connection) = connect(&server, &client).await;
        drop(task::spawn(echo(served.clone())));
        for length in [0, 1, 1200, 5_000_000] {
            ask(&connection, &data(length)).await;
        }
        let offloads = Socket::new(socket).unwrap().max_transmit_segments() > 1;
        let (sent, received) = (connection.stats().udp_tx, served.stats().udp_rx);
        assert!(sent.datagrams > 3000 && received.bytes > 5_000_000, "{sent:?} {received:?}");
        if offloads {
            assert!(sent.ios * 2 < sent.datagrams, "{sent:?}");
        } else {
            eprintln!("skipped in part: this kernel has no UDP_SEGMENT");
        }
        connection.close(7_u8.into(), b"bye");
        let ConnectionError::ApplicationClosed(close) = served.closed().await else { panic!("not closed") };
        assert_eq!((close.error_code, &close.reason[..]), (7_u8.into(), &b"bye"[..]));
    });
}

#[test]
fn many_quic_connections_share_a_socket() {
    run(async {
        let ([server, client], _) = endpoints().await;
        let connections: Vec<_> = (0..20)
            .map(|_| {
                let (server, client) = (server.clone(), client.clone());
                task::spawn(async move {
                    let (served, connection) = connect(&server, &client).await;
                    drop(task::spawn(echo(served)));
                    for _ in 0..10 {
                        ask(&connection, &data(20_000)).await;
                    }
                })
            })
            .collect();
        for connection in connections {
            connection.await;
        }
    });
}

/// The client uses quinn with async-io's sockets and timers, in smol's tasks.
#[test]
fn client_on_smol_runtime_is_served() {
    run(async {
        let ([server, client], _) = endpoints().await;
        drop(client);
        let (server_config, client_config) = configure();
        server.set_server_config(Some(server_config));
        let std = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut client = Endpoint::new(EndpointConfig::default(), None, std, Arc::new(SmolRuntime)).unwrap();
        client.set_default_client_config(client_config);
        let addr = server.local_addr().unwrap();
        let asks = smol::spawn(async move {
            let connection = client.connect(addr, "localhost").unwrap().await.unwrap();
            ask(&connection, &data(2_000_000)).await;
            connection.close(0_u8.into(), b"");
            client.wait_idle().await;
        });
        echo(server.accept().await.unwrap().await.unwrap()).await;
        asks.await;
    });
}

/// A Python program that connects with aioquic, sends 1 MB, and prints `True` if it receives the
/// same bytes.
const AIOQUIC: &str = "
import asyncio, sys
from aioquic.asyncio import connect
from aioquic.quic.configuration import QuicConfiguration

async def main(port, certificate):
    configuration = QuicConfiguration(server_name='localhost', cadata=certificate.encode())
    async with connect('127.0.0.1', int(port), configuration=configuration) as connection:
        reader, writer = await connection.create_stream()
        data = bytes(at % 251 for at in range(1_000_000))
        writer.write(data)
        writer.write_eof()
        print(await reader.read() == data)

asyncio.run(main(*sys.argv[1:]))
";

#[test]
fn aioquic_client_is_served() {
    let mut import = Command::new("python3");
    if !common::output(import.args(["-c", "import aioquic"])).is_ok_and(|import| import.status.success()) {
        return eprintln!("skipped: aioquic is not installed");
    }
    run(async {
        let (config, _, certificate) = configure_with_certificate();
        let server = endpoint(EndpointConfig::default(), Some(config), socket().await).unwrap();
        let port = server.local_addr().unwrap().port().to_string();
        let client = task::spawn_blocking(move || {
            common::output(Command::new("python3").args(["-c", AIOQUIC, &port, &certificate])).unwrap()
        });
        echo(server.accept().await.unwrap().await.unwrap()).await;
        let output = client.await;
        assert!(output.status.success() && output.stdout == b"True\n", "{output:?}");
    });
}

/// Operations of endpoints and connections can be awaited outside of netpoll's tasks.
#[test]
fn endpoints_are_awaited_under_any_executor() {
    let ([server, client], _) = park_on(endpoints());
    let (served, connection) = futures::executor::block_on(connect(&server, &client));
    let echo = smol::spawn(echo(served));
    park_on(ask(&connection, &data(300_000)));
    connection.close(0_u8.into(), b"");
    park_on(echo);
}

/// `Endpoint::new` of quinn passes a std socket to netpoll's implementation of `Runtime`, which
/// converts it.
#[test]
fn std_sockets_of_either_family_are_accepted() {
    run(async {
        for ip in [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()] {
            let bind = || std::net::UdpSocket::bind(SocketAddr::new(ip, 0));
            let Ok(std) = bind() else {
                eprintln!("skipped in part: this machine has no {ip}");
                continue;
            };
            let (server_config, client_config) = configure();
            let server = Endpoint::new(EndpointConfig::default(), Some(server_config), std, Arc::new(Runtime)).unwrap();
            let std = bind().unwrap();
            let mut client = Endpoint::new(EndpointConfig::default(), None, std, Arc::new(Runtime)).unwrap();
            client.set_default_client_config(client_config);
            let (served, connection) = connect(&server, &client).await;
            drop(task::spawn(echo(served)));
            ask(&connection, b"hello").await;
        }
    });
}

/// A close of the socket and an expired deadline end the endpoint and its connections.
#[test]
fn close_and_deadlines_apply_through_quinn() {
    run(async {
        for closes in [true, false] {
            let ([server, client], [socket, _]) = endpoints().await;
            let (served, _connection) = connect(&server, &client).await;
            let accept = task::spawn(async move { server.accept().await.is_none() });
            let ended = task::spawn(async move { served.closed().await });
            if closes {
                socket.close().await.unwrap();
            } else {
                socket.set_deadline(Instant::now()).unwrap();
            }
            assert!(accept.await, "the endpoint is closed");
            let error = ended.await;
            // The connection ends with `LocallyClosed` if it was about to send.
            assert!(matches!(error, ConnectionError::TransportError(_) | ConnectionError::LocallyClosed), "{error:?}");
        }
    });
}

#[test]
fn silent_peer_times_out_by_quinn_timer() {
    run(async {
        let ([server, mut client], [socket, _]) = endpoints().await;
        let mut transport = TransportConfig::default();
        transport.max_idle_timeout(Some(Duration::from_secs(2).try_into().unwrap()));
        let (server_config, mut client_config) = configure();
        server.set_server_config(Some(server_config));
        client_config.transport_config(Arc::new(transport));
        client.set_default_client_config(client_config);
        let (_served, connection) = connect(&server, &client).await;
        socket.close().await.unwrap();
        assert_eq!(connection.closed().await, ConnectionError::TimedOut);
    });
}

#[test]
fn reset_timer_does_not_fire_early() {
    run(async {
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        let mut timer = Runtime.new_timer(at(3_600_000));
        for (moves, end) in [(&[20][..], 20), (&[30, 60, 50][..], 50), (&[40][..], 40)] {
            for &ms in moves {
                timer.as_mut().reset(at(ms));
                let _ = futures::poll!(poll_fn(|cx| timer.as_mut().poll(cx)));
            }
            poll_fn(|cx| timer.as_mut().poll(cx)).await;
            assert!(begin.elapsed() >= Duration::from_millis(end));
        }
    });
}

#[test]
fn timer_reset_to_later_time_arms_no_new_timer() {
    child("timer_reset_to_later_time_arms_no_new_timer", || {
        run(async {
            let later = |seconds| Instant::now() + Duration::from_secs(seconds);
            let mut timer = Runtime.new_timer(later(100));
            let before = netpoll::rt::metrics().timers_armed;
            for seconds in 0..1000 {
                timer.as_mut().reset(later(200 + seconds));
                assert!(futures::poll!(poll_fn(|cx| timer.as_mut().poll(cx))).is_pending());
            }
            assert_eq!(netpoll::rt::metrics().timers_armed - before, 1);
        });
    });
}

/// Returns the number of open sockets of this process.
fn sockets() -> usize {
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap();
    // A descriptor may be closed while this function runs.
    let links = descriptors.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
    links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
}

#[test]
fn dropped_endpoint_closes_its_descriptor() {
    child("dropped_endpoint_closes_its_descriptor", || {
        run(async {
            assert_eq!(sockets(), 0);
            {
                let ([server, client], _) = endpoints().await;
                let (served, connection) = connect(&server, &client).await;
                drop(task::spawn(echo(served)));
                ask(&connection, b"hello").await;
                assert_eq!(sockets(), 2);
            }
            becomes("all sockets are closed", || sockets() == 0).await;
        });
    });
}
