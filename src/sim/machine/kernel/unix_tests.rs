//! Tests of Unix sockets in the simulated kernel.

use super::socket::{Family, Kind};
use super::tests::{receive, send, send_to, world};
use super::{Address, Kernel};

#[test]
fn unix_pairs_and_names_work_within_a_host() {
    let mut kernel = world(1);
    let (one, other) = kernel.pair(0, Kind::Stream, true).unwrap();
    send(&mut kernel, one, b"ab").unwrap();
    send(&mut kernel, one, b"cd").unwrap();
    assert_eq!(receive(&mut kernel, other).unwrap(), b"abcd");
    kernel.close(one).unwrap();
    assert_eq!(receive(&mut kernel, other).unwrap(), b"");
    assert_eq!(send(&mut kernel, other, b"x"), Err(libc::EPIPE));

    let name = Address::Unix(b"/run/server".to_vec());
    let listener = kernel.open(0, Family::Unix, Kind::Stream, true).unwrap();
    kernel.bind(listener, &name).unwrap();
    kernel.listen(listener, 1).unwrap();
    let client = |kernel: &mut Kernel, host| kernel.open(host, Family::Unix, Kind::Stream, true).unwrap();
    let near = client(&mut kernel, 0);
    kernel.connect(near, &name).unwrap();
    let (accepted, _) = kernel.accept(listener, true).unwrap();
    assert_eq!(kernel.peer_address(near), Ok(name.clone()));
    send(&mut kernel, accepted, b"hello").unwrap();
    assert_eq!(receive(&mut kernel, near).unwrap(), b"hello");
    let far = client(&mut kernel, 1);
    assert_eq!(kernel.connect(far, &name), Err(libc::ENOENT), "another host has its own names");
    kernel.close(listener).unwrap();
    let late = client(&mut kernel, 0);
    assert_eq!(kernel.connect(late, &name), Err(libc::ENOENT));
}

#[test]
fn unix_datagrams_keep_their_boundaries_and_apply_backpressure() {
    let mut kernel = world(1);
    let open = |kernel: &mut Kernel, name: &str| {
        let fd = kernel.open(0, Family::Unix, Kind::Datagram, true).unwrap();
        kernel.bind(fd, &Address::Unix(name.as_bytes().to_vec())).unwrap();
        fd
    };
    let (one, other) = (open(&mut kernel, "\0one"), open(&mut kernel, "\0other"));
    let to = Address::Unix(b"\0other".to_vec());
    send_to(&mut kernel, one, &[b"first"], Some(&to)).unwrap();
    let refused = (0..100).find_map(|_| send_to(&mut kernel, one, &[b"more"], Some(&to)).err());
    assert_eq!(refused, Some(libc::EAGAIN));
    let mut buf = [0; 16];
    let received = kernel.receive(other, &mut [&mut buf], false).unwrap();
    assert_eq!((received.bytes, received.from), (5, Some(Address::Unix(b"\0one".to_vec()))));
    send_to(&mut kernel, one, &[b"room"], Some(&to)).unwrap();
}

#[test]
fn chosen_name_differs_from_the_names_that_are_taken() {
    let mut kernel = world(1);
    let open = |kernel: &mut Kernel| kernel.open(0, Family::Unix, Kind::Stream, true).unwrap();
    let none = Address::Unix(Vec::new());
    let first = open(&mut kernel);
    kernel.bind(first, &none).unwrap();
    let Ok(Address::Unix(chosen)) = kernel.local_address(first) else { panic!("a name") };
    kernel.close(first).unwrap();
    let taker = open(&mut kernel);
    let second = open(&mut kernel);
    // The second socket is in another place of the table, so the names that follow are taken too.
    let number = u32::from_str_radix(std::str::from_utf8(&chosen[1..]).unwrap(), 16).unwrap();
    for next in number..number + 4 {
        let fd = open(&mut kernel);
        kernel.bind(fd, &Address::Unix(format!("\0{next:05x}").into_bytes())).unwrap();
    }
    for fd in [taker, second] {
        kernel.bind(fd, &none).unwrap();
    }
    assert_ne!(kernel.local_address(taker), kernel.local_address(second));
}
