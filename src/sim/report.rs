//! Output of a simulation: its log, a diagram of its packets, a capture, and its sockets.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use super::machine::current::WALL_START;
use super::machine::kernel::Kernel;
use super::machine::kernel::log::{Fate, What, seconds};
use super::machine::kernel::packet::{Body, IpFields, Packet, Protocol};
use super::machine::kernel::socket::{Family, Kind, Role, Socket};

/// Returns the log, one line per entry.
pub(super) fn log(kernel: &Kernel) -> String {
    let mut text = String::new();
    for entry in kernel.log.entries() {
        let host = &kernel.hosts[usize::from(entry.host)].name;
        let _ = writeln!(text, "{:>16} {host:<12} {}", seconds(entry.at).to_string(), entry.what);
    }
    text
}

/// The width of the column of a host, in characters.
const COLUMN: usize = 28;

/// Returns the number of the host with the address `ip`, or `here` if no host has the address.
pub(super) fn host_of(kernel: &Kernel, ip: IpAddr, here: u16) -> usize {
    let at = kernel.hosts.iter().position(|host| host.addrs.contains(&ip));
    at.unwrap_or(usize::from(here))
}

/// Returns the text of a packet without its addresses, its window, the word `TCP` and a length
/// of 0.
pub(super) fn fields(text: &str) -> String {
    let words = text.split_whitespace().skip(3).filter(|word| *word != "TCP");
    let mut brief: Vec<&str> = words.collect();
    while let Some(at) = brief.windows(2).position(|pair| pair[0] == "win" || pair == ["len", "0"]) {
        brief.drain(at..at + 2);
    }
    brief.join(" ")
}

/// Returns the fields of a packet, shortened to fit a column.
fn brief(text: &str) -> String {
    fields(text).chars().take(COLUMN - 7).collect()
}

/// Returns a diagram of the log: one column per host, and one line per packet sent, per packet lost
/// and per note.
pub(super) fn diagram(kernel: &Kernel) -> String {
    let hosts = kernel.hosts.len();
    let mut text = format!("{:>16}  ", "time");
    for host in &kernel.hosts {
        let _ = write!(text, "{:<COLUMN$}", host.name);
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    for entry in kernel.log.entries() {
        let mut line = vec![' '; COLUMN * hosts];
        (0..hosts).for_each(|host| line[host * COLUMN] = '|');
        let mut put = |at: usize, text: &str| {
            for (place, char) in line.iter_mut().skip(at).zip(text.chars()) {
                *place = char;
            }
        };
        match &entry.what {
            What::Packet(summary, fate @ (Fate::Sent | Fate::Dropped(_))) => {
                let (from, to) =
                    (host_of(kernel, summary.src.ip(), entry.host), host_of(kernel, summary.dst.ip(), entry.host));
                let what = brief(&summary.text);
                let (low, high) = (from.min(to), from.max(to));
                if low == high {
                    put(low * COLUMN + 2, &format!("({what})"));
                } else {
                    let width = (high - low) * COLUMN - 1;
                    let mark = if matches!(fate, Fate::Dropped(_)) { "lost: " } else { "" };
                    let body = format!("{:-^width$}", format!(" {mark}{what} "));
                    let body: String = body.chars().take(width).collect();
                    put(low * COLUMN + 1, &body);
                    if from < to { put(high * COLUMN - 1, ">") } else { put(low * COLUMN + 1, "<") }
                }
            }
            What::Text(note) => put(usize::from(entry.host) * COLUMN + 2, &format!("* {note}")),
            What::Packet(..) | What::Call(..) => continue,
        }
        let line: String = line.into_iter().collect();
        let _ = writeln!(text, "{:>16}  {}", seconds(entry.at).to_string(), line.trim_end());
    }
    text
}

/// Returns a description of the socket at `place` in the table of descriptors.
pub(super) fn describe(place: i32, socket: &Socket) -> String {
    let addr = |addr: Option<SocketAddr>| addr.map_or_else(|| "-".to_owned(), |addr| addr.to_string());
    let kind = match (socket.family, socket.kind) {
        (Family::Unix, Kind::Stream) => "unix stream",
        (Family::Unix, Kind::Datagram) => "unix datagram",
        (Family::Unix, Kind::Packets) => "unix seqpacket",
        (_, Kind::Datagram) => "udp",
        _ => "tcp",
    };
    let state = match &socket.role {
        Role::Unconnected => "unconnected".to_owned(),
        Role::Dead => "dead".to_owned(),
        Role::Listener(listener) => format!("listening, {} to accept", listener.queue.len()),
        Role::Tcp(connection) => format!(
            "{:?}, {} bytes to read, {} bytes not acknowledged",
            connection.state,
            connection.readable(),
            connection.unacknowledged()
        ),
        Role::Udp(datagrams) => format!("{} datagrams to read", datagrams.queue.len()),
        Role::Unix(end) => format!("{} bytes to read", end.bytes),
    };
    let peer = socket.remote.map_or_else(String::new, |remote| format!(" > {remote}"));
    format!("{place}: {kind} {}{peer}, {state}", addr(socket.local))
}

fn checksum(parts: &[&[u8]]) -> u16 {
    let bytes: Vec<u8> = parts.concat();
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or_default()]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// Returns the IP header of a packet whose payload has `length` bytes. The family is that of the
/// addresses.
fn ip_header(src: &[u8], dst: &[u8], protocol: u8, length: u16) -> Vec<u8> {
    let is_v4 = src.len() == 4;
    let mut header = if is_v4 {
        let total = (20 + length).to_be_bytes();
        vec![0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, protocol, 0, 0]
    } else {
        let payload = length.to_be_bytes();
        vec![0x60, 0, 0, 0, payload[0], payload[1], protocol, 64]
    };
    header.extend_from_slice(src);
    header.extend_from_slice(dst);
    if is_v4 {
        let sum = checksum(&[&header]).to_be_bytes();
        header[10..12].copy_from_slice(&sum);
    }
    header
}

/// Returns the bytes of a packet on the wire, beginning with the IP header.
fn wire(packet: &Packet) -> Vec<u8> {
    let (src, dst) = (octets(packet.src.ip()), octets(packet.dst.ip()));
    let is_v4 = packet.src.is_ipv4();
    let (protocol, mut body, at): (u8, Vec<u8>, usize) = match &packet.body {
        Body::Tcp(segment) => {
            let mut body = Vec::with_capacity(20 + segment.data.len());
            body.extend(packet.src.port().to_be_bytes());
            body.extend(packet.dst.port().to_be_bytes());
            body.extend((segment.seq as u32).to_be_bytes());
            body.extend((segment.ack.unwrap_or_default() as u32).to_be_bytes());
            let flags = u8::from(segment.fin)
                | u8::from(segment.syn) << 1
                | u8::from(segment.rst) << 2
                | u8::from(!segment.data.is_empty()) << 3
                | u8::from(segment.ack.is_some()) << 4;
            body.extend([5 << 4, flags]);
            body.extend(u16::try_from(segment.window).unwrap_or(u16::MAX).to_be_bytes());
            body.extend([0; 4]);
            body.extend_from_slice(&segment.data);
            (6, body, 16)
        }
        Body::Udp(data, _) => {
            let mut body = Vec::with_capacity(8 + data.len());
            body.extend(packet.src.port().to_be_bytes());
            body.extend(packet.dst.port().to_be_bytes());
            body.extend((8 + data.len() as u16).to_be_bytes());
            body.extend([0; 2]);
            body.extend_from_slice(data);
            (17, body, 6)
        }
        Body::Unreachable(of, why) => {
            // The message contains the IP header and 8 more bytes of the packet that caused it. Of
            // these, only the addresses, the protocol and the ports are those of the packet.
            let inner =
                Packet { src: packet.dst, dst: packet.src, body: Body::Udp(Box::default(), IpFields::default()) };
            let mut about = wire(&inner);
            if *of == Protocol::Tcp {
                let header = ip_header(&dst, &src, 6, 8);
                about[..header.len()].copy_from_slice(&header);
            }
            let port = *why == super::machine::kernel::packet::Unreachable::Port;
            let (protocol, ty, code) =
                if is_v4 { (1, 3, if port { 3 } else { 1 }) } else { (58, 1, if port { 4 } else { 3 }) };
            let mut body = vec![ty, code, 0, 0, 0, 0, 0, 0];
            body.extend(about);
            (protocol, body, 2)
        }
    };
    let length = body.len() as u32;
    let pseudo = match protocol {
        1 => Vec::new(),
        _ => [&src[..], &dst[..], &length.to_be_bytes(), &[0, 0, 0, protocol]].concat(),
    };
    let sum = checksum(&[&pseudo, &body]).to_be_bytes();
    body[at..at + 2].copy_from_slice(&sum);
    let mut packet = ip_header(&src, &dst, protocol, length as u16);
    packet.extend(body);
    packet
}

/// Returns the packets that were kept, as a pcap file with times in nanoseconds (LINKTYPE_RAW).
pub(super) fn pcap(kernel: &Kernel) -> Vec<u8> {
    let mut file = Vec::new();
    file.extend(0xa1b2_3c4d_u32.to_le_bytes());
    file.extend([2, 0, 4, 0]);
    file.extend([0; 8]);
    file.extend(262_144_u32.to_le_bytes());
    file.extend(101_u32.to_le_bytes());
    for (at, packet) in kernel.log.capture.iter().flatten() {
        let (time, bytes) = (WALL_START + at, wire(packet));
        file.extend(((time / 1_000_000_000) as u32).to_le_bytes());
        file.extend(((time % 1_000_000_000) as u32).to_le_bytes());
        let length = (bytes.len() as u32).to_le_bytes();
        file.extend(length);
        file.extend(length);
        file.extend(bytes);
    }
    file
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::machine::kernel::packet::{Segment, Unreachable};

    fn packet(src: &str, dst: &str, body: Body) -> Packet {
        Packet { src: src.parse().unwrap(), dst: dst.parse().unwrap(), body }
    }

    /// For IPv4, this tests the length, and that the checksum of a header or body that includes its
    /// own checksum is zero. For IPv6, it tests only the length.
    #[test]
    fn packets_on_the_wire_have_correct_checksums_and_lengths() {
        let segment = Segment {
            seq: 1,
            ack: Some(2),
            syn: false,
            fin: true,
            rst: false,
            window: 1000,
            data: Box::from(*b"odd"),
            connection: 0,
        };
        for body in [
            Body::Tcp(segment),
            Body::Udp(Box::from(*b"data"), IpFields::default()),
            Body::Unreachable(Protocol::Udp, Unreachable::Port),
            Body::Unreachable(Protocol::Tcp, Unreachable::Host),
        ] {
            let bytes = wire(&packet("10.0.0.1:5000", "10.0.0.2:80", body.clone()));
            assert_eq!(bytes.len(), usize::from(u16::from_be_bytes([bytes[2], bytes[3]])));
            assert_eq!(checksum(&[&bytes[..20]]), 0);
            let body_bytes = &bytes[20..];
            let pseudo = [&bytes[12..20], &[0, bytes[9]], &(body_bytes.len() as u16).to_be_bytes()].concat();
            let pseudo = if bytes[9] == 1 { Vec::new() } else { pseudo };
            assert_eq!(checksum(&[&pseudo, body_bytes]), 0, "{body:?}");
            let bytes = wire(&packet("[fd00::1]:5000", "[fd00::2]:80", body));
            assert_eq!(bytes.len(), 40 + usize::from(u16::from_be_bytes([bytes[4], bytes[5]])));
        }
    }

    #[test]
    fn brief_text_omits_addresses_window_and_zero_length() {
        for (text, expected) in [
            ("10.0.0.1:1 > 10.0.0.2:2 TCP SYN seq 0 win 131072 len 0", "SYN seq 0"),
            ("10.0.0.1:1 > 10.0.0.2:2 TCP seq 1 ack 6 win 131072 len 5", "seq 1 ack 6 len 5"),
            ("10.0.0.1:1 > 10.0.0.2:2 UDP len 3", "UDP len 3"),
        ] {
            assert_eq!(brief(text), expected);
        }
    }

    #[test]
    fn capture_has_the_header_and_a_record_per_packet() {
        let mut kernel = Kernel::new(1);
        kernel.log.capture =
            Some(vec![(5, packet("10.0.0.1:1", "10.0.0.2:2", Body::Udp(Box::from(*b"abc"), IpFields::default())))]);
        let file = pcap(&kernel);
        assert_eq!(file.len(), 24 + 16 + 31);
        assert_eq!(file[..4], 0xa1b2_3c4d_u32.to_le_bytes());
        assert_eq!(file[20..24], 101_u32.to_le_bytes());
    }
}
