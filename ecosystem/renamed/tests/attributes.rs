//! Tests of the attributes in a crate that depends on netpoll under the name `async-std`. Such a
//! crate can migrate from async-std by a change of its manifest only.

use async_std::io;
use async_std::net::{TcpListener, TcpStream};
use async_std::prelude::*;
use async_std::task;

#[async_std::test]
async fn attribute_finds_the_name_of_the_dependency() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let mut client = TcpStream::connect(listener.local_addr()?).await?;
    let (server, _) = listener.accept().await?;
    let writer = task::spawn(async move { server.write_all(b"renamed").await });
    let mut text = String::new();
    client.read_to_string(&mut text).await?;
    assert_eq!(text, "renamed");
    writer.await
}

mod program {
    #[async_std::main]
    pub(super) async fn main() -> u32 {
        async_std::task::spawn(async { 7 }).await
    }
}

mod with_path {
    #[async_std::main(crate = async_std)]
    pub(super) async fn main() -> usize {
        async_std::rt::metrics().workers
    }
}

#[test]
fn main_finds_the_name_of_the_dependency_or_takes_a_path() {
    assert_eq!(program::main(), 7);
    assert!(with_path::main() > 0);
}

/// Stands for a crate that re-exports netpoll and has a macro that uses the attribute. A crate that
/// calls the macro need not depend on netpoll.
mod facade {
    pub(super) use async_std as runtime;

    macro_rules! test {
        ($name:ident, $body:block) => {
            #[async_std::test(crate = $crate::facade::runtime)]
            async fn $name() $body
        };
    }
    pub(super) use test;
}

facade::test!(attribute_takes_a_path_from_a_macro, {
    async_std::task::yield_now().await;
});

#[async_std::test(crate = "async_std")]
async fn attribute_takes_a_quoted_path() {}

#[async_std::test(crate = crate::facade::runtime)]
async fn attribute_takes_a_plain_path() {}
