//! A server that implements a few commands of Redis (PING, ECHO, SET, GET, DEL, EXISTS, INCR,
//! DBSIZE, FLUSHALL, CONFIG GET, COMMAND and QUIT) over the protocol RESP2.
//!
//! ```text
//! cargo run --release --example redis_like                              # 127.0.0.1:7000
//! cargo run --release --example redis_like -- 127.0.0.1:7000 plain 2    # ADDRESS MODE WORKERS
//! redis-cli -p 7000 set greeting hello
//! redis-benchmark -p 7000 -t set,get -n 1000000 -P 16
//! ```
//!
//! The example shows gathered writes (`auto_cork`). A client may send many commands before it reads
//! a response. The server writes each response separately, but the responses to all commands of one
//! read are usually sent with one system call. The mode `plain` disables this for comparison. Any
//! other mode, such as `gather`, leaves it enabled. The third argument is the number of workers.
//! Ctrl-C or SIGTERM stops the server.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use netpoll::net::{self, ListenConfig, TcpStream};
use netpoll::{io, rt, signal, task};

/// The maximum length of a command in bytes. Without a limit, a client could exhaust the memory
/// with one command.
const COMMAND_BYTES_MAX: usize = 1 << 20;
/// The maximum number of words of a command that is sent as an array.
const WORDS_MAX: usize = 1024;

type Store = Arc<Mutex<HashMap<Vec<u8>, Vec<u8>>>>;

fn main() -> io::Result<()> {
    let mut args = std::env::args().skip(1);
    let addr = args.next().unwrap_or_else(|| "127.0.0.1:7000".to_owned());
    let gather = args.next().is_none_or(|mode| mode != "plain");
    if let Some(workers) = args.next().and_then(|workers| workers.parse().ok()) {
        rt::Builder::new().workers(workers).start()?;
    }
    task::block_on(task::spawn(async move { serve(&addr, gather, signal::termination()?).await }))
}

pub(crate) async fn serve(addr: &str, gather: bool, stop: impl Future + Send + 'static) -> io::Result<()> {
    let listener = ListenConfig::new().auto_cork(gather).listen(addr).await?;
    println!("listening on {}", listener.local_addr()?);
    let store = Store::default();
    let handler = move |stream: TcpStream| {
        let store = store.clone();
        async move {
            if let Err(error) = talk(&stream, &store).await {
                eprintln!("{stream:?}: {error}");
            }
        }
    };
    let server = net::serve(listener, handler).until(stop);
    println!("{}", server.when_stopping(|stream| drop(stream.close_read())).await?);
    Ok(())
}

/// Executes the commands of one client until the client disconnects, quits, or sends a command that
/// is malformed or too long.
async fn talk(stream: &TcpStream, store: &Store) -> io::Result<()> {
    let (mut buf, mut filled, mut answer) = (vec![0; 16 << 10], 0, Vec::new());
    loop {
        if filled == buf.len() {
            if filled >= COMMAND_BYTES_MAX {
                return stream.write_all(b"-ERR command is too long\r\n").await;
            }
            buf.resize(2 * filled, 0);
        }
        let count = stream.read(&mut buf[filled..]).await?;
        if count == 0 {
            return Ok(());
        }
        filled += count;
        let mut at = 0;
        loop {
            match command(&buf[at..filled]) {
                Ok(Some((words, len))) => {
                    at += len;
                    answer.clear();
                    let goes_on = words.is_empty() || execute(&words, store, &mut answer);
                    stream.write_all(&answer).await?;
                    if !goes_on {
                        return Ok(());
                    }
                }
                Ok(None) => break,
                Err(reason) => return stream.write_all(format!("-ERR {reason}\r\n").as_bytes()).await,
            }
        }
        buf.copy_within(at..filled, 0);
        filled -= at;
    }
}

/// The words of a command.
type Words<'a> = Vec<&'a [u8]>;

/// Returns the words of the first command and its length in bytes, or `None` if the command is
/// incomplete. Returns an error text if the command is malformed.
fn command(bytes: &[u8]) -> Result<Option<(Words<'_>, usize)>, &'static str> {
    let Some((first, mut at)) = line(bytes, 0) else { return Ok(None) };
    let Some(count) = first.strip_prefix(b"*") else {
        // An inline command: a line of words, such as one that is typed by hand.
        return Ok(Some((first.split(|byte| *byte == b' ').filter(|word| !word.is_empty()).collect(), at)));
    };
    let count = number(count).filter(|count| *count <= WORDS_MAX).ok_or("invalid number of words")?;
    let mut words = Vec::with_capacity(count);
    for _ in 0..count {
        let Some((head, start)) = line(bytes, at) else { return Ok(None) };
        let len = head.strip_prefix(b"$").and_then(number).filter(|len| *len <= COMMAND_BYTES_MAX);
        let end = start + len.ok_or("invalid length")?;
        if bytes.len() < end + 2 {
            return Ok(None);
        }
        if &bytes[end..end + 2] != b"\r\n" {
            return Err("a word is not terminated");
        }
        words.push(&bytes[start..end]);
        at = end + 2;
    }
    Ok(Some((words, at)))
}

/// Returns the line at `from` without its line terminator, and the index after the terminator, or
/// `None` if the line is incomplete.
fn line(bytes: &[u8], from: usize) -> Option<(&[u8], usize)> {
    let end = from + bytes[from..].iter().position(|byte| *byte == b'\n')?;
    let line = &bytes[from..end];
    Some((line.strip_suffix(b"\r").unwrap_or(line), end + 1))
}

fn number(digits: &[u8]) -> Option<usize> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Executes a command and appends its response to `answer`. Returns whether the connection stays
/// open.
fn execute(words: &[&[u8]], store: &Store, answer: &mut Vec<u8>) -> bool {
    let name = words[0].to_ascii_uppercase();
    let mut store = store.lock().unwrap_or_else(PoisonError::into_inner);
    match (&name[..], &words[1..]) {
        (b"PING", []) => answer.extend_from_slice(b"+PONG\r\n"),
        (b"PING" | b"ECHO", [text]) => bulk(answer, text),
        (b"SET", [key, value]) => {
            match store.get_mut(*key) {
                Some(old) => {
                    old.clear();
                    old.extend_from_slice(value);
                }
                None => drop(store.insert(key.to_vec(), value.to_vec())),
            }
            answer.extend_from_slice(b"+OK\r\n");
        }
        (b"GET", [key]) => match store.get(*key) {
            Some(value) => bulk(answer, value),
            None => answer.extend_from_slice(b"$-1\r\n"),
        },
        (b"DEL", keys) if !keys.is_empty() => {
            integer(answer, keys.iter().filter(|key| store.remove(**key).is_some()).count() as i64);
        }
        (b"EXISTS", keys) if !keys.is_empty() => {
            integer(answer, keys.iter().filter(|key| store.contains_key(**key)).count() as i64);
        }
        (b"INCR", [key]) => {
            let value = store.entry(key.to_vec()).or_insert_with(|| b"0".to_vec());
            let old: Option<i64> = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
            match old.and_then(|old| old.checked_add(1)) {
                Some(new) => {
                    *value = new.to_string().into_bytes();
                    integer(answer, new);
                }
                None => answer.extend_from_slice(b"-ERR value is not an integer or out of range\r\n"),
            }
        }
        (b"DBSIZE", []) => integer(answer, store.len() as i64),
        (b"FLUSHALL", _) => {
            store.clear();
            answer.extend_from_slice(b"+OK\r\n");
        }
        // redis-benchmark queries two settings.
        (b"CONFIG", [_, setting]) => {
            answer.extend_from_slice(b"*2\r\n");
            bulk(answer, setting);
            bulk(answer, b"");
        }
        (b"COMMAND", _) => answer.extend_from_slice(b"*0\r\n"),
        (b"QUIT", _) => {
            answer.extend_from_slice(b"+OK\r\n");
            return false;
        }
        _ => {
            let name = String::from_utf8_lossy(words[0]);
            answer.extend_from_slice(format!("-ERR unknown command or wrong arguments: {name:.40}\r\n").as_bytes());
        }
    }
    true
}

fn bulk(answer: &mut Vec<u8>, bytes: &[u8]) {
    answer.extend_from_slice(format!("${}\r\n", bytes.len()).as_bytes());
    answer.extend_from_slice(bytes);
    answer.extend_from_slice(b"\r\n");
}

fn integer(answer: &mut Vec<u8>, value: i64) {
    answer.extend_from_slice(format!(":{value}\r\n").as_bytes());
}
