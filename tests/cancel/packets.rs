//! Drops receives of Unix seqpacket sockets, which macOS does not have.

use netpoll::os::unix::net::UnixSeqpacket;

use crate::common::run;
use crate::sweep::{alone, drop_at, no_operation_waits, sweep};

#[test]
fn dropped_packet_receive_loses_no_packet() {
    let _alone = alone();
    run(sweep("packet recv", async |at| {
        let (one, other) = UnixSeqpacket::pair().unwrap();
        let mut buf = [0; 8];
        let stir = async || assert_eq!(other.send(b"hello").await.unwrap(), 5);
        let outcome = drop_at(at, one.recv(&mut buf), &stir).await;
        no_operation_waits("packet recv", at).await;
        if !outcome.stirred {
            stir().await;
        }
        let mut rest = [0; 8];
        if outcome.output.is_none() {
            let count = one.recv(&mut rest).await.unwrap();
            assert_eq!(&rest[..count], b"hello");
        }
        outcome.output.is_some()
    }));
}
