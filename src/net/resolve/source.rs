//! [`Resolve`]: the trait of resolvers that replace the host's name service.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;

use super::lookup_error::LookupError;
use crate::sys::names::Family;

/// A resolver that a [`Dialer`](crate::net::Dialer::resolver) uses instead of the host's name
/// service. The crate `netpoll-resolver` has one that queries DNS servers.
///
/// # Examples
/// ```
/// use netpoll::net::{Dialer, Family, LookupError, Resolve, SocketAddr, TcpListener};
/// use std::{future::Future, pin::Pin};
///
/// /// A resolver that knows one name.
/// #[derive(Debug)]
/// struct Fixed;
///
/// impl Resolve for Fixed {
///     fn addrs(
///         &self,
///         host: &str,
///         _: Family,
///     ) -> Pin<Box<dyn Future<Output = Result<Vec<SocketAddr>, LookupError>> + Send>> {
///         let answer = match host {
///             "db.internal" => Ok(vec![([127, 0, 0, 1], 0).into()]),
///             _ => Err(LookupError::not_found(host)),
///         };
///         Box::pin(async move { answer })
///     }
/// }
///
/// # netpoll::task::block_on(async {
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// let dialer = Dialer::new().resolver(Fixed);
/// dialer.dial(("db.internal", listener.local_addr()?.port())).await?;
/// let error = dialer.dial("other.internal:80").await.unwrap_err();
/// assert_eq!(error.to_string(), "dial tcp: lookup other.internal: no such host");
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
pub trait Resolve: fmt::Debug + Send + Sync {
    /// Looks up the addresses of `host` in one family or both, in the order in which they should be
    /// tried. The ports of the returned addresses are ignored. A dialer that races addresses also
    /// looks up each family separately if the answer for both takes more than 50 ms. The dialer
    /// drops a future to abandon its look-up.
    ///
    /// # Errors
    /// Returns a [`LookupError`]. If there is no address, returns [`LookupError::not_found`].
    fn addrs(
        &self,
        host: &str,
        family: Family,
    ) -> Pin<Box<dyn Future<Output = Result<Vec<SocketAddr>, LookupError>> + Send>>;
}
