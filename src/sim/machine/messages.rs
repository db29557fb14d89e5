//! Calls with message headers: recvmsg(2), sendmsg(2), recvmmsg(2) and sendmmsg(2), and the control
//! messages of datagrams.

#![allow(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::{ptr, slice};

use libc::{c_int, c_uint, cmsghdr, mmsghdr, msghdr};

use super::abi::{Result, buffers, kernel, read_address, receive_into, send_to, unsupported, write_address};
use super::kernel::IpOverrides;
use super::kernel::packet::IpFields;

pub(super) fn recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> Result<isize> {
    // SAFETY: the caller passes a message to which it has exclusive access during the call.
    let message = unsafe { &mut *message };
    let received = receive_into(fd, message.msg_iov, message.msg_iovlen, flags)?;
    match &received.from {
        Some(from) => write_address(from, message.msg_name.cast(), &raw mut message.msg_namelen),
        None => message.msg_namelen = 0,
    }
    message.msg_flags = if received.whole > received.bytes { libc::MSG_TRUNC } else { 0 };
    let mut control = received.ip_fields.map(|(ip_fields, to)| encode_ip_fields(fd, ip_fields, to)).unwrap_or_default();
    if fit(&mut control, message.msg_controllen) {
        message.msg_flags |= libc::MSG_CTRUNC;
    }
    message.msg_controllen = control.len() as _;
    // SAFETY: the buffer for control data has room for that many bytes, which may be none.
    unsafe { ptr::copy_nonoverlapping(control.as_ptr(), message.msg_control.cast::<u8>(), control.len()) };
    let truncates = flags & libc::MSG_TRUNC != 0;
    Ok(if truncates { received.whole } else { received.bytes } as isize)
}

pub(super) fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> Result<isize> {
    // SAFETY: the caller passes a message that is valid during the call.
    let message = unsafe { &*message };
    let control = match message.msg_controllen {
        0 => &[],
        // SAFETY: the caller passes that many bytes of control data.
        length => unsafe { slice::from_raw_parts(message.msg_control.cast::<u8>(), length) },
    };
    let overrides = overrides(control)?;
    let to = match message.msg_name.is_null() || message.msg_namelen == 0 {
        true => None,
        false => Some(read_address(message.msg_name.cast_const().cast(), message.msg_namelen)?),
    };
    let bufs = buffers(message.msg_iov, message.msg_iovlen)?;
    let bufs: Vec<&[u8]> = bufs.iter().map(|buf| &**buf).collect();
    send_to(fd, &bufs, to.as_ref(), flags, overrides)
}

/// Returns the length of the header of a control message, with its padding.
fn space_before() -> usize {
    // SAFETY: only arithmetic.
    unsafe { libc::CMSG_LEN(0) as usize }
}

/// Reads the value of a control message from its data. Fails with EINVAL if the data is too short.
fn value<T: Copy>(data: &[u8]) -> Result<T> {
    if data.len() < size_of::<T>() {
        return Err(libc::EINVAL);
    }
    // SAFETY: the data is long enough; the types that are read are valid for any bytes.
    Ok(unsafe { data.as_ptr().cast::<T>().read_unaligned() })
}

/// Reads a field of the IP header from the data of a control message: an int, or a byte for IP_TOS.
/// Returns `None` for -1 in a message of IPv6, which stands for the socket's value. Fails with
/// EINVAL for data of another length, and for a value that does not fit into a byte.
fn field(header: &cmsghdr, data: &[u8]) -> Result<Option<u8>> {
    let value = match data {
        [byte] if (header.cmsg_level, header.cmsg_type) == (libc::IPPROTO_IP, libc::IP_TOS) => c_int::from(*byte),
        _ => c_int::from_ne_bytes(data.try_into().map_err(|_| libc::EINVAL)?),
    };
    match value {
        -1 if header.cmsg_level == libc::IPPROTO_IPV6 => Ok(None),
        value => u8::try_from(value).map(Some).map_err(|_| libc::EINVAL),
    }
}

/// Reads the settings for one datagram from the control messages of a send. Fails with EINVAL if
/// one of these messages is malformed, or if its effect is not simulated.
fn overrides(control: &[u8]) -> Result<IpOverrides> {
    let mut overrides = IpOverrides::default();
    let mut rest = control;
    while rest.len() >= size_of::<cmsghdr>() {
        // SAFETY: the bytes are enough for a header, which is valid for any bytes; the read needs
        // no alignment.
        let header = unsafe { rest.as_ptr().cast::<cmsghdr>().read_unaligned() };
        let data = rest.get(space_before()..header.cmsg_len).ok_or(libc::EINVAL)?;
        match (header.cmsg_level, header.cmsg_type) {
            (libc::IPPROTO_IP, libc::IP_TOS) | (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                overrides.tos = field(&header, data)?;
            }
            (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
                overrides.hops = field(&header, data)?;
            }
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                let ip = Ipv4Addr::from(u32::from_be(value::<libc::in_pktinfo>(data)?.ipi_spec_dst.s_addr));
                overrides.source = (!ip.is_unspecified()).then_some(IpAddr::V4(ip));
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO | libc::IPV6_2292PKTINFO) => {
                let ip = Ipv6Addr::from(value::<libc::in6_pktinfo>(data)?.ipi6_addr.s6_addr);
                overrides.source = (!ip.is_unspecified()).then(|| IpAddr::V6(ip).to_canonical());
            }
            (libc::SOL_SOCKET, libc::SCM_RIGHTS) => {
                return Err(unsupported("passes descriptors over a Unix socket (SCM_RIGHTS)", libc::EINVAL));
            }
            (level, kind) => {
                let what = format!("sends ancillary data of the level {level} and type {kind}");
                return Err(unsupported(&what, libc::EINVAL));
            }
        }
        rest = rest.get(header.cmsg_len.next_multiple_of(size_of::<usize>())..).unwrap_or_default();
    }
    Ok(overrides)
}

/// Shortens control messages to `room` bytes and returns whether data was lost. As on Linux, the
/// last message may be returned in part, with the length of this part, or without its padding.
fn fit(control: &mut Vec<u8>, room: usize) -> bool {
    let mut at = 0;
    while at < control.len() {
        let left = room.saturating_sub(at);
        // SAFETY: a header begins here; the read needs no alignment.
        let mut header: cmsghdr = unsafe { control[at..].as_ptr().cast::<cmsghdr>().read_unaligned() };
        if left < space_before() {
            control.truncate(at.min(room));
            return true;
        }
        let length = header.cmsg_len;
        if left < length {
            header.cmsg_len = left as _;
            // SAFETY: as above.
            unsafe { control[at..].as_mut_ptr().cast::<cmsghdr>().write_unaligned(header) };
            control.truncate(room);
            return true;
        }
        at += length.next_multiple_of(size_of::<usize>());
    }
    control.truncate(room);
    false
}

/// Appends a control message.
fn push<T: Copy>(control: &mut Vec<u8>, level: c_int, kind: c_int, value: T) {
    let size = size_of::<T>() as u32;
    // SAFETY: only arithmetic.
    let length = unsafe { libc::CMSG_LEN(size) };
    // SAFETY: only arithmetic.
    let space = unsafe { libc::CMSG_SPACE(size) };
    // SAFETY: plain data for which all zeroes is a valid value.
    let mut header: cmsghdr = unsafe { std::mem::zeroed() };
    (header.cmsg_len, header.cmsg_level, header.cmsg_type) = (length as _, level, kind);
    let start = control.len();
    control.resize(start + space as usize, 0);
    // SAFETY: the space begins with a header; the write needs no alignment.
    unsafe { control[start..].as_mut_ptr().cast::<cmsghdr>().write_unaligned(header) };
    // SAFETY: the space has room for the value after the header; the write needs no alignment.
    unsafe { control[start + space_before()..].as_mut_ptr().cast::<T>().write_unaligned(value) };
}

/// Returns the control messages with the fields of a datagram that the options of the receiving
/// socket `fd` request. `to` is the destination address.
fn encode_ip_fields(fd: c_int, ip_fields: IpFields, to: IpAddr) -> Vec<u8> {
    let mut control = Vec::new();
    let asks = |level, name| kernel(|kernel| kernel.stored_option(fd, level, name)).is_ok_and(|value| value != 0);
    let index = if to.is_loopback() { 1 } else { 2 };
    if let IpAddr::V4(ip) = to {
        if asks(libc::IPPROTO_IP, libc::IP_PKTINFO) {
            let address = libc::in_addr { s_addr: u32::from(ip).to_be() };
            let info = libc::in_pktinfo { ipi_ifindex: index, ipi_spec_dst: address, ipi_addr: address };
            push(&mut control, libc::IPPROTO_IP, libc::IP_PKTINFO, info);
        }
        if asks(libc::IPPROTO_IP, libc::IP_RECVTTL) {
            push(&mut control, libc::IPPROTO_IP, libc::IP_TTL, c_int::from(ip_fields.hops));
        }
        if asks(libc::IPPROTO_IP, libc::IP_RECVTOS) {
            push(&mut control, libc::IPPROTO_IP, libc::IP_TOS, ip_fields.tos);
        }
    }
    if asks(libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO) {
        let ip = match to {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        let info = libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: ip.octets() }, ipi6_ifindex: index as _ };
        push(&mut control, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info);
    }
    if to.is_ipv6() && asks(libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT) {
        push(&mut control, libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT, c_int::from(ip_fields.hops));
    }
    if to.is_ipv6() && asks(libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS) {
        push(&mut control, libc::IPPROTO_IPV6, libc::IPV6_TCLASS, c_int::from(ip_fields.tos));
    }
    control
}

fn messages<'a>(messages: *mut mmsghdr, count: c_uint) -> &'a mut [mmsghdr] {
    if count == 0 {
        return &mut [];
    }
    // SAFETY: the caller passes that many messages, to which it has exclusive access during the
    // call.
    unsafe { slice::from_raw_parts_mut(messages, count as usize) }
}

/// Makes a call for each message until a call fails. Returns the number of messages, or the error
/// if the first call failed.
fn each(list: *mut mmsghdr, count: c_uint, mut call: impl FnMut(&mut msghdr) -> Result<isize>) -> Result<c_int> {
    let mut done = 0;
    for message in messages(list, count) {
        match call(&mut message.msg_hdr) {
            Ok(bytes) => message.msg_len = bytes as c_uint,
            Err(errno) if done == 0 => return Err(errno),
            Err(_) => break,
        }
        done += 1;
    }
    Ok(done)
}

pub(super) fn recvmmsg(fd: c_int, list: *mut mmsghdr, count: c_uint, flags: c_int) -> Result<c_int> {
    each(list, count, |message| recvmsg(fd, message, flags))
}

pub(super) fn sendmmsg(fd: c_int, list: *mut mmsghdr, count: c_uint, flags: c_int) -> Result<c_int> {
    each(list, count, |message| sendmsg(fd, message, flags))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_messages_set_the_fields_of_a_datagram() {
        let mut control = Vec::new();
        push(&mut control, libc::IPPROTO_IP, libc::IP_TOS, 7_u8);
        push(&mut control, libc::IPPROTO_IP, libc::IP_TTL, 255);
        assert_eq!(overrides(&control), Ok(IpOverrides { tos: Some(7), hops: Some(255), source: None }));
        let mut control = Vec::new();
        push(&mut control, libc::IPPROTO_IPV6, libc::IPV6_TCLASS, -1);
        push(&mut control, libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT, 0);
        assert_eq!(overrides(&control), Ok(IpOverrides { tos: None, hops: Some(0), source: None }));
    }

    #[test]
    fn malformed_control_messages_are_errors() {
        let values = [
            (libc::IPPROTO_IP, libc::IP_TOS, 256),
            (libc::IPPROTO_IP, libc::IP_TOS, -1),
            (libc::IPPROTO_IP, libc::IP_TTL, 256),
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS, 256),
            (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT, -2),
        ];
        for (level, kind, value) in values {
            let mut control = Vec::new();
            push(&mut control, level, kind, value);
            assert_eq!(overrides(&control), Err(libc::EINVAL), "{level} {kind} {value}");
        }
        let mut control = Vec::new();
        push(&mut control, libc::IPPROTO_IP, libc::IP_TTL, 1_u8);
        assert_eq!(overrides(&control), Err(libc::EINVAL), "a byte");
        let mut control = Vec::new();
        push(&mut control, libc::IPPROTO_IP, libc::IP_TTL, 1);
        push(&mut control, libc::IPPROTO_IP, libc::IP_TOS, 1);
        let end = control.len();
        let part = &control[end / 2..][..space_before() + size_of::<c_int>() - 1];
        assert_eq!(overrides(part), Err(libc::EINVAL), "a part of a message");
        for length in [space_before() - 1, space_before() + size_of::<c_int>() + 1, end + 1, usize::MAX] {
            // SAFETY: the data begins with a header, whose first field is its length; the write
            // needs no alignment.
            unsafe { control.as_mut_ptr().cast::<usize>().write_unaligned(length) };
            assert_eq!(overrides(&control), Err(libc::EINVAL), "a length of {length} bytes");
        }
    }
}
