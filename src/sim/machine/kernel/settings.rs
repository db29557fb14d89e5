//! `Settings`: the socket options that a TCP connection uses. `receive_buffer` also limits the
//! received data of UDP sockets, and `send_buffer` the data that a Unix socket has sent and that
//! was not received yet.

const SECOND: u64 = 1_000_000_000;

/// The number of data bytes of the largest segment that fits into an IPv4 packet. The MTU of the
/// link and the option TCP_MAXSEG may require smaller segments.
pub(crate) const MSS_MAX: u64 = 65_495;

/// Settings of a connection; see the [module documentation](self). Times are in nanoseconds. A
/// `user_timeout` of 0 means that there is none.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) mss: u64,
    pub(crate) send_buffer: u64,
    pub(crate) receive_buffer: u64,
    pub(crate) no_delay: bool,
    pub(crate) keep_alive: bool,
    pub(crate) keep_idle: u64,
    pub(crate) keep_interval: u64,
    pub(crate) keep_count: u32,
    pub(crate) user_timeout: u64,
}

impl Settings {
    /// Creates settings with Linux's defaults, except that the buffers have a fixed size.
    pub(crate) const fn new() -> Settings {
        Settings {
            mss: MSS_MAX,
            send_buffer: 256 << 10,
            receive_buffer: 128 << 10,
            no_delay: false,
            keep_alive: false,
            keep_idle: 7200 * SECOND,
            keep_interval: 75 * SECOND,
            keep_count: 9,
            user_timeout: 0,
        }
    }
}
