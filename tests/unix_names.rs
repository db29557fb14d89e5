//! Names of Unix sockets: paths, abstract names, the files of listeners, dials by name, and errors.
#![cfg(target_os = "linux")] // abstract names, and seqpacket sockets

mod common;

use std::fs;
use std::io::ErrorKind;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net as std_net;
use std::path::Path;
use std::task::Poll;
use std::time::{Duration, Instant};

use common::{Folder, child, no_forks, op_error, poll_once, run};
use netpoll::net::{TcpListener, TcpStream, is_closed, is_timeout, raw_os_error};
use netpoll::os::unix::net::{UnixDatagram, UnixListener, UnixSeqpacket, UnixSeqpacketListener, UnixStream};
use netpoll::prelude::*;
use netpoll::{io, task};

async fn connected(listener: &UnixListener) -> (UnixStream, UnixStream) {
    let client = UnixStream::connect_addr(&listener.local_addr().unwrap()).await.unwrap();
    (client, listener.accept().await.unwrap().0)
}

fn text<T: std::fmt::Debug>(result: io::Result<T>) -> String {
    result.unwrap_err().to_string()
}

fn errno<T: std::fmt::Debug>(result: io::Result<T>) -> Option<i32> {
    raw_os_error(&result.unwrap_err())
}

// ---- names ----

/// Go: TestUnixConnLocalAndRemoteNames. The accepted side has the listener's name. The client has
/// no name.
#[test]
fn accepted_stream_has_the_name_of_its_listener() {
    run(async {
        let folder = Folder::new();
        let path = folder.join("s");
        let listener = UnixListener::bind(&path).await.unwrap();
        let client = UnixStream::connect(&path).await.unwrap();
        let (server, peer) = listener.accept().await.unwrap();
        assert!(peer.is_unnamed() && client.local_addr().unwrap().is_unnamed());
        assert_eq!(client.peer_addr().unwrap().as_pathname(), Some(&*path));
        assert_eq!(server.local_addr().unwrap().as_pathname(), Some(&*path));
        assert!(server.peer_addr().unwrap().is_unnamed());
        assert!(format!("{client:?}").contains(path.to_str().unwrap()));
        // A client that is bound has a name too.
        let named = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
        let own = folder.join("client");
        named.bind(&socket2::SockAddr::unix(&own).unwrap()).unwrap();
        named.connect(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
        let (server, peer) = listener.accept().await.unwrap();
        assert_eq!(peer.as_pathname(), Some(&*own));
        let named = UnixStream::from(OwnedFd::from(named));
        assert_eq!(named.local_addr().unwrap().as_pathname(), Some(&*own));
        assert_eq!(server.peer_addr().unwrap().as_pathname(), Some(&*own));
    });
}

/// Go: TestUnixgramAutobind. The name has five hexadecimal digits, and clients can use it.
#[test]
fn empty_name_is_autobound() {
    run(async {
        let listener = UnixListener::bind("").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let name = addr.as_abstract_name().unwrap();
        assert_eq!(name.len(), 5);
        assert!(name.iter().all(u8::is_ascii_hexdigit));
        UnixStream::connect_addr(&addr).await.unwrap();
        // The name is also accepted as a path, and is printed with an `@`.
        let path = [b"\0", name].concat();
        let path = Path::new(std::str::from_utf8(&path).unwrap());
        UnixStream::connect(path).await.unwrap();
        let _no_forks = no_forks();
        listener.close().await.unwrap();
        let name = std::str::from_utf8(name).unwrap();
        let error = UnixStream::connect(path).await.unwrap_err();
        assert_eq!(error.to_string(), format!("dial unix @{name}: connect: connection refused"));
        let error = listener.accept().await.unwrap_err();
        assert_eq!(error.to_string(), format!("accept unix @{name}: use of closed network connection"));
    });
}

/// Go: TestUnixgramLinuxAbstractLongName. A name may have 107 bytes after the leading NUL, without
/// a terminating NUL.
#[test]
fn abstract_names_hold_any_bytes() {
    run(async {
        let mut name = format!("\0netpoll-{}-", std::process::id()).into_bytes();
        name.extend_from_slice(b"a\0b/");
        name.resize(108, b'x');
        let path = Path::new(std::str::from_utf8(&name).unwrap());
        let listener = UnixListener::bind(path).await.unwrap();
        assert_eq!(listener.local_addr().unwrap().as_abstract_name(), Some(&name[1..]));
        let client = UnixStream::connect(path).await.unwrap();
        assert_eq!(client.peer_addr().unwrap().as_abstract_name(), Some(&name[1..]));
        // A shorter name is a different name.
        let shorter = Path::new(std::str::from_utf8(&name[..107]).unwrap());
        assert_eq!(UnixStream::connect(shorter).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
        name.push(b'x');
        let longer = Path::new(std::str::from_utf8(&name).unwrap());
        assert_eq!(UnixListener::bind(longer).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    });
}

/// `@` is an ordinary byte, as in std, so a relative path that begins with `@` names a file.
#[test]
fn at_sign_is_not_abstract() {
    child("at_sign_is_not_abstract", || {
        let folder = Folder::new();
        std::env::set_current_dir(folder.path()).unwrap();
        task::block_on(async {
            let listener = UnixListener::bind("@name").await.unwrap();
            assert!(folder.join("@name").exists());
            drop(listener);
            assert!(!folder.join("@name").exists());
        });
    });
}

/// An abstract name is given as std's address or, as in async-io, as a path that begins with NUL.
#[test]
fn abstract_name_is_an_address_or_a_path() {
    run(async {
        let name = format!("netpoll-async-io-{}", std::process::id());
        let addr = std_net::SocketAddr::from_abstract_name(&name).unwrap();
        let path = format!("\0{name}");
        let listener = UnixListener::bind(&path).await.unwrap();
        assert_eq!(listener.local_addr().unwrap().as_abstract_name(), Some(name.as_bytes()));
        for client in [UnixStream::connect(&path).await.unwrap(), UnixStream::connect_addr(&addr).await.unwrap()] {
            client.write_all(b"abstract").await.unwrap();
            let (server, _) = listener.accept().await.unwrap();
            let mut buf = [0; 1024];
            let count = server.read(&mut buf).await.unwrap();
            assert_eq!(&buf[..count], b"abstract");
        }
    });
}

// ---- the file ----

/// Go: TestUnixUnlink. The listener that created the file removes it, and only once.
#[test]
fn listener_removes_its_socket_file() {
    run(async {
        let folder = Folder::new();
        let path = folder.join("s");
        drop(UnixListener::bind(&path).await.unwrap());
        assert!(!path.exists(), "a dropped listener removes its file");
        let listener = UnixListener::bind(&path).await.unwrap();
        listener.close().await.unwrap();
        assert!(!path.exists(), "a closed listener removes its file");
        // Another file has the path now. Neither a second close nor the drop removes it.
        fs::write(&path, "mine").unwrap();
        listener.close().await.unwrap();
        drop(listener);
        assert!(path.exists());
        fs::remove_file(&path).unwrap();
        // Clients do not remove the socket file.
        let listener = UnixListener::bind(&path).await.unwrap();
        let (client, server) = connected(&listener).await;
        server.force_close().await.unwrap();
        drop(client);
        assert!(path.exists());
        // Closing succeeds even if the file is gone.
        fs::remove_file(&path).unwrap();
        listener.close().await.unwrap();
        // A stream of connections that owns the listener removes the file.
        let incoming = UnixListener::bind(&path).await.unwrap().into_incoming();
        assert!(path.exists());
        drop(incoming);
        assert!(!path.exists());
        // A stream of seqpacket connections also removes the file. It yields connections and, after
        // the close, one error and then its end.
        let mut incoming = UnixSeqpacketListener::bind(&path).await.unwrap().into_incoming();
        let client = UnixSeqpacket::connect(&path).await.unwrap();
        let server = incoming.next().await.unwrap().unwrap();
        client.send(b"packet").await.unwrap();
        assert_eq!(server.recv(&mut [0; 16]).await.unwrap(), 6);
        incoming.listener().close().await.unwrap();
        assert!(!path.exists() && is_closed(&incoming.next().await.unwrap().unwrap_err()));
        assert!(incoming.next().await.is_none());
    });
}

/// When a listener closes, it keeps the file of another listener that has been renamed to its path.
#[test]
fn file_replacing_socket_is_kept() {
    run(async {
        let folder = Folder::new();
        let path = folder.join("s");
        let old = UnixListener::bind(&path).await.unwrap();
        let next = UnixListener::bind(folder.join("next")).await.unwrap();
        next.set_unlink_on_close(false).unwrap();
        fs::rename(folder.join("next"), &path).unwrap();
        old.close().await.unwrap();
        UnixStream::connect(&path).await.unwrap();
        next.accept().await.unwrap();
    });
}

/// Go: TestUnixUnlink. An adopted listener keeps its file unless it is configured otherwise. A
/// conversion into another type keeps the file.
#[test]
fn unlink_on_close_is_configurable() {
    run(async {
        let folder = Folder::new();
        let path = folder.join("s");
        let adopted = |path: &Path| UnixListener::from(std_net::UnixListener::bind(path).unwrap());
        drop(adopted(&path));
        assert!(path.exists(), "a listener adopted from std keeps its file");
        fs::remove_file(&path).unwrap();
        let raw = std_net::UnixListener::bind(&path).unwrap().into_raw_fd();
        // SAFETY: `into_raw_fd` just transferred ownership of the number.
        drop(unsafe { UnixListener::from_raw_fd(raw) });
        assert!(path.exists(), "a listener adopted from a raw descriptor keeps its file");
        fs::remove_file(&path).unwrap();

        let listener = adopted(&path);
        listener.set_unlink_on_close(true).unwrap();
        listener.close().await.unwrap();
        assert!(!path.exists(), "removal was enabled");
        assert!(is_closed(&listener.set_unlink_on_close(true).unwrap_err()));

        let listener = UnixListener::bind(&path).await.unwrap();
        listener.set_unlink_on_close(false).unwrap();
        drop(listener);
        assert!(path.exists(), "removal was disabled");
        fs::remove_file(&path).unwrap();

        let listener = UnixListener::bind(&path).await.unwrap();
        let std = std_net::UnixListener::try_from(listener).unwrap();
        assert!(path.exists(), "a conversion to std keeps the file");
        let listener = UnixListener::from(std);
        drop(OwnedFd::from(listener));
        assert!(path.exists(), "a conversion to a descriptor keeps the file");
        fs::remove_file(&path).unwrap();
        let packets = UnixSeqpacketListener::bind(&path).await.unwrap();
        drop(OwnedFd::from(packets));
        assert!(path.exists(), "a conversion to a descriptor keeps the file");

        // Go: TestUnixgramAutobind. An autobound listener has no file, so its close removes none.
        let listener = UnixListener::bind("").await.unwrap();
        listener.set_unlink_on_close(true).unwrap();
        listener.close().await.unwrap();
    });
}

/// The relative path of a listener refers to the directory in which the listener was bound.
#[test]
fn relative_socket_file_is_removed_after_chdir() {
    child("relative_socket_file_is_removed_after_chdir", || {
        let folder = Folder::new();
        for name in ["first", "second"] {
            fs::create_dir(folder.join(name)).unwrap();
        }
        let (home, away) = (folder.join("first"), folder.join("second"));
        // The new directory has a socket with the same name, which belongs to another listener.
        let other = std_net::UnixListener::bind(away.join("rel.sock")).unwrap();
        let go = |to: &Path| std::env::set_current_dir(to).unwrap();
        let addr = std_net::SocketAddr::from_pathname("rel.sock").unwrap();
        task::block_on(async {
            for way in 0..10 {
                go(&home);
                let file = home.join("rel.sock");
                match way {
                    0 => {
                        let listener = UnixListener::bind("rel.sock").await.unwrap();
                        go(&away);
                        drop(listener);
                    }
                    1 => {
                        let listener = UnixListener::bind("./rel.sock").await.unwrap();
                        go(&away);
                        listener.close().await.unwrap();
                    }
                    2 => {
                        let listener = UnixListener::bind("../first/rel.sock").await.unwrap();
                        go(&away);
                        drop(listener.into_incoming());
                    }
                    3 => {
                        let listener = UnixListener::bind_addr(&addr).await.unwrap();
                        go(&away);
                        drop(listener);
                    }
                    4 => {
                        let listener = UnixSeqpacketListener::bind("rel.sock").await.unwrap();
                        go(&away);
                        drop(listener);
                    }
                    5 => {
                        let listener = UnixSeqpacketListener::bind_addr(&addr).await.unwrap();
                        go(&away);
                        listener.close().await.unwrap();
                    }
                    6 => {
                        // The option is changed twice, the second time in another directory.
                        let listener = UnixListener::bind("rel.sock").await.unwrap();
                        listener.set_unlink_on_close(false).unwrap();
                        go(&away);
                        listener.set_unlink_on_close(true).unwrap();
                        drop(listener);
                    }
                    7 => {
                        // The adopted listener is configured in the original directory.
                        let listener = UnixListener::from(std_net::UnixListener::bind("rel.sock").unwrap());
                        listener.set_unlink_on_close(true).unwrap();
                        go(&away);
                        drop(listener);
                    }
                    8 => {
                        let listener = UnixListener::bind("rel.sock").await.unwrap();
                        go(&away);
                        listener.set_unlink_on_close(false).unwrap();
                        drop(listener);
                        assert!(file.exists(), "removal was disabled");
                        fs::remove_file(&file).unwrap();
                    }
                    _ => {
                        // The file of a datagram socket remains, as with std.
                        let socket = UnixDatagram::bind("rel.sock").await.unwrap();
                        go(&away);
                        drop(socket);
                        assert!(file.exists(), "the file of a datagram socket remains");
                        fs::remove_file(&file).unwrap();
                    }
                }
                assert!(!file.exists(), "{way}: the file is left behind");
                assert!(away.join("rel.sock").exists(), "{way}: another socket's file was removed");
            }
        });
        drop(other);
        go(Path::new("/"));
    });
}

/// A listener does not remove a file of any kind that has replaced its socket file.
#[test]
fn replaced_socket_file_is_not_removed() {
    run(async {
        let folder = Folder::new();
        let path = folder.join("s");
        type Replace = fn(&Path);
        let replacements: [(&str, Replace); 4] = [
            ("a socket", |path| drop(std_net::UnixListener::bind(path).unwrap())),
            ("a file", |path| fs::write(path, "mine").unwrap()),
            ("a link", |path| std::os::unix::fs::symlink("/nowhere", path).unwrap()),
            ("a folder", |path| fs::create_dir(path).unwrap()),
        ];
        for (what, replace) in replacements {
            for asked_again in [false, true] {
                let listener = UnixListener::bind(&path).await.unwrap();
                fs::remove_file(&path).unwrap();
                replace(&path);
                if asked_again {
                    listener.set_unlink_on_close(true).unwrap();
                }
                listener.close().await.unwrap();
                drop(listener);
                assert!(fs::symlink_metadata(&path).is_ok(), "{what} was removed");
                let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir(&path));
            }
        }
        // An adopted listener does not know which file it created. It refuses to remove the file at
        // its path if this file is not a socket.
        let listener = UnixListener::from(std_net::UnixListener::bind(&path).unwrap());
        fs::remove_file(&path).unwrap();
        fs::write(&path, "mine").unwrap();
        assert_eq!(listener.set_unlink_on_close(true).unwrap_err().kind(), ErrorKind::InvalidInput);
        drop(listener);
        assert!(path.exists());
        fs::remove_file(&path).unwrap();
    });
}

// ---- dialling ----

/// Go's dial fails immediately. This crate's dial retries, because the kernel reports no event when
/// the queue has room.
#[test]
fn dial_waits_on_full_backlog() {
    run(async {
        let folder = Folder::new();
        let path = folder.join("s");
        let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
        socket.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
        socket.listen(1).unwrap();
        let listener = UnixListener::from(OwnedFd::from(socket));
        let mut held = Vec::new();
        loop {
            match poll_once(&mut Box::pin(UnixStream::connect(&path))).await {
                Poll::Ready(stream) => held.push(stream.unwrap()),
                Poll::Pending => break,
            }
            assert!(held.len() < 10, "the backlog does not fill");
        }
        let error = UnixStream::connect_timeout(&path, Duration::from_millis(20)).await.unwrap_err();
        assert!(is_timeout(&error));
        assert_eq!(error.to_string(), format!("dial unix {}: i/o timeout", path.display()));
        assert!(op_error(&error).is_deadline());
        let start = Instant::now();
        let late = UnixStream::connect_deadline(&path, start + Duration::from_millis(30)).await;
        assert!(is_timeout(&late.unwrap_err()) && start.elapsed() >= Duration::from_millis(30));
        assert!(is_timeout(&UnixStream::connect_deadline(&path, start).await.unwrap_err()));
        // Without a timeout the dial waits until there is room. A dial that is dropped leaves
        // nothing behind.
        let (mut waiting, mut given_up) = (Box::pin(UnixStream::connect(&path)), Box::pin(UnixStream::connect(&path)));
        assert!(poll_once(&mut waiting).await.is_pending() && poll_once(&mut given_up).await.is_pending());
        drop(given_up);
        let queued = held.len();
        for _ in 0..queued {
            listener.accept().await.unwrap();
        }
        let client = waiting.await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        client.write_all(b"x").await.unwrap();
        assert_eq!(server.read(&mut [0; 1]).await.unwrap(), 1);
        let mut accept = listener.accept();
        assert!(poll_once(&mut accept).await.is_pending(), "the queue has no other connection");
    });
}

/// A waiting dial ends when its listener closes.
#[test]
fn waiting_dial_fails_when_listener_closes() {
    run(async {
        let folder = Folder::new();
        let path = folder.join("p");
        let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::SEQPACKET, None).unwrap();
        socket.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
        socket.listen(0).unwrap();
        let first = UnixSeqpacket::connect(&path).await.unwrap();
        let passed = UnixSeqpacket::connect_deadline(&path, Instant::now()).await.unwrap_err();
        assert!(is_timeout(&passed));
        let late = UnixSeqpacket::connect_timeout(&path, Duration::from_millis(10)).await.unwrap_err();
        assert_eq!(late.to_string(), format!("dial unixpacket {}: i/o timeout", path.display()));
        let mut waiting = Box::pin(UnixSeqpacket::connect(&path));
        assert!(poll_once(&mut waiting).await.is_pending());
        drop(socket);
        let error = waiting.await.unwrap_err();
        assert_eq!(error.to_string(), format!("dial unixpacket {}: connect: connection refused", path.display()));
        drop(first);
    });
}

#[test]
fn zero_timeout_fails_dial_immediately() {
    run(async {
        let zero = UnixStream::connect_timeout("/nowhere", Duration::ZERO).await;
        assert_eq!(zero.unwrap_err().kind(), ErrorKind::InvalidInput);
        let zero = UnixSeqpacket::connect_timeout("/nowhere", Duration::ZERO).await;
        assert_eq!(zero.unwrap_err().kind(), ErrorKind::InvalidInput);
    });
}

// ---- errors ----

/// Go: TestProtocolDialError, TestProtocolListenError. The error texts are Go's.
#[test]
fn unix_errors_name_operation_and_path() {
    run(async {
        let folder = Folder::new();
        let missing = folder.join("missing");
        let at = missing.display();
        let dialled = UnixStream::connect(&missing).await.unwrap_err();
        assert_eq!(dialled.to_string(), format!("dial unix {at}: connect: no such file or directory"));
        assert_eq!((dialled.kind(), raw_os_error(&dialled)), (ErrorKind::NotFound, Some(libc::ENOENT)));
        let nowhere = missing.join("s");
        let at_nowhere = nowhere.display();
        assert_eq!(
            text(UnixListener::bind(&nowhere).await),
            format!("listen unix {at_nowhere}: bind: no such file or directory")
        );
        assert_eq!(
            text(UnixSeqpacket::connect(&missing).await),
            format!("dial unixpacket {at}: connect: no such file or directory")
        );
        assert_eq!(
            text(UnixDatagram::bind(&nowhere).await),
            format!("listen unixgram {at_nowhere}: bind: no such file or directory")
        );

        // A socket file without a listener makes a bind fail, and a dial is refused.
        let stale = folder.join("stale");
        let no_forks = no_forks();
        drop(std_net::UnixListener::bind(&stale).unwrap());
        let at = stale.display();
        let taken = UnixListener::bind(&stale).await.unwrap_err();
        assert_eq!(taken.to_string(), format!("listen unix {at}: bind: address already in use"));
        assert_eq!(taken.kind(), ErrorKind::AddrInUse);
        assert_eq!(text(UnixStream::connect(&stale).await), format!("dial unix {at}: connect: connection refused"));
        drop(no_forks);
        assert!(stale.exists(), "a file that was not bound is not removed");

        // Dials to a file that is not a socket, and to a socket of another kind, fail.
        let plain = folder.join("plain");
        fs::write(&plain, "").unwrap();
        assert_eq!(errno(UnixStream::connect(&plain).await), Some(libc::ECONNREFUSED));
        let packets = folder.join("packets");
        let _packets = UnixSeqpacket::bind(&packets).await.unwrap();
        assert_eq!(errno(UnixStream::connect(&packets).await), Some(libc::EPROTOTYPE));
        assert!(errno(UnixStream::connect("").await).is_some(), "there is no socket with an empty name");
    });
}

#[test]
fn invalid_names_are_rejected() {
    run(async {
        let long = format!("/tmp/{}", "x".repeat(200));
        let error = UnixStream::connect(&long).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert_eq!(error.to_string(), format!("dial unix {long}: socket path must have at most 107 bytes"));
        for name in [long.as_str(), "/tmp/a\0b"] {
            assert_eq!(UnixListener::bind(name).await.unwrap_err().kind(), ErrorKind::InvalidInput);
            assert_eq!(UnixSeqpacket::bind(name).await.unwrap_err().kind(), ErrorKind::InvalidInput);
            assert_eq!(UnixSeqpacket::connect(name).await.unwrap_err().kind(), ErrorKind::InvalidInput);
            assert_eq!(UnixDatagram::bind(name).await.unwrap_err().kind(), ErrorKind::InvalidInput);
            let socket = UnixDatagram::unbound().unwrap();
            assert_eq!(socket.connect(name).await.unwrap_err().kind(), ErrorKind::InvalidInput);
            assert_eq!(socket.send_to(b"x", name).await.unwrap_err().kind(), ErrorKind::InvalidInput);
        }
        // A path of the maximum length works.
        let folder = Folder::new();
        let stem = folder.join("").to_str().unwrap().to_owned();
        let path = format!("{stem}{}", "x".repeat(107 - stem.len()));
        let listener = UnixListener::bind(&path).await.unwrap();
        let client = UnixStream::connect(&path).await.unwrap();
        assert_eq!(client.peer_addr().unwrap().as_pathname(), Some(Path::new(&path)));
        drop(listener);
        assert!(!Path::new(&path).exists());
    });
}

#[test]
fn socket_file_without_permission_is_rejected() {
    // SAFETY: the call takes no arguments and cannot fail.
    if unsafe { libc::geteuid() } == 0 {
        println!("skipped: root has all permissions");
        return;
    }
    run(async {
        let folder = Folder::new();
        let path = folder.join("s");
        let _listener = UnixListener::bind(&path).await.unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
        assert_eq!(UnixStream::connect(&path).await.unwrap_err().kind(), ErrorKind::PermissionDenied);
    });
}

/// Sockets of another family and descriptors that are not sockets cause errors.
#[test]
fn unix_types_reject_descriptors_of_other_kinds() {
    run(async {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let listener = UnixListener::from(OwnedFd::from(listener));
        assert_eq!(errno(listener.local_addr()), Some(libc::EAFNOSUPPORT));
        let client = std::net::TcpStream::connect(addr).unwrap();
        assert_eq!(errno(listener.accept().await), Some(libc::EAFNOSUPPORT));
        let stream = UnixStream::from(OwnedFd::from(client));
        assert_eq!(errno(stream.peer_addr()), Some(libc::EAFNOSUPPORT));
        assert!(format!("{stream:?} {listener:?}").contains("UnixStream"));
        // TCP types can hold Unix sockets.
        let (ours, _theirs) = std_net::UnixStream::pair().unwrap();
        assert_eq!(errno(TcpStream::from(OwnedFd::from(ours)).local_addr()), Some(libc::EAFNOSUPPORT));
        let folder = Folder::new();
        let unix = std_net::UnixListener::bind(folder.join("s")).unwrap();
        let tcp = TcpListener::from(OwnedFd::from(unix));
        let _client = std_net::UnixStream::connect(folder.join("s")).unwrap();
        assert_eq!(errno(tcp.accept().await), Some(libc::EAFNOSUPPORT));
        // Operations fail on a descriptor that is not a socket.
        let file = UnixStream::from(OwnedFd::from(fs::File::open("/dev/null").unwrap()));
        assert_eq!(errno(file.read(&mut [0; 1]).await), Some(libc::ENOTSOCK));
        assert_eq!(errno(file.peer_cred()), Some(libc::ENOTSOCK));
        let file = UnixDatagram::from(OwnedFd::from(fs::File::open("/dev/null").unwrap()));
        assert_eq!(errno(file.recv_from(&mut [0; 1]).await), Some(libc::ENOTSOCK));
        assert_eq!(errno(file.send_to(b"x", "/nowhere").await), Some(libc::ENOTSOCK));
        // `accept` fails on a socket that does not listen.
        let (ours, _theirs) = std_net::UnixStream::pair().unwrap();
        assert_eq!(errno(UnixListener::from(OwnedFd::from(ours)).accept().await), Some(libc::EINVAL));
    });
}
