//! `netpoll::io` with scripted readers and writers: results, the contents of buffers after an error
//! or a dropped future, and the calls that the reader or writer receives. Also `io::timeout`.

mod common;

use std::collections::VecDeque;
use std::error::Error as _;
use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::string::FromUtf8Error;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use common::run as block_on;
use netpoll::io::{
    self, BufReader, BufWriter, Cursor, Error, ErrorKind, IoSlice, IoSliceMut, Result, SeekFrom, TooLong, prelude::*,
};
use netpoll::prelude::*;

/// A step of a scripted reader or writer. Each poll executes the next step.
#[derive(Clone, Debug)]
enum Step {
    /// Reader: returns these bytes, over as many polls as the caller's buffers require. Writer:
    /// accepts at most that many bytes.
    Data(&'static [u8]),
    /// Wakes the task and returns Pending.
    Wait,
    Fail(ErrorKind),
}
use Step::{Data, Fail, Wait};

/// A reader that executes its steps and then reports the end of the stream. Panics if it is polled
/// again.
#[derive(Debug)]
struct Reader {
    steps: VecDeque<Step>,
    ended: bool,
}

impl Reader {
    fn new(steps: impl IntoIterator<Item = Step>) -> Reader {
        Reader { steps: steps.into_iter().collect(), ended: false }
    }
}

impl io::Read for Reader {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<Result<usize>> {
        assert!(!self.ended, "polled after the end");
        match self.steps.pop_front() {
            Some(Data(bytes)) => {
                let count = bytes.len().min(buf.len());
                buf[..count].copy_from_slice(&bytes[..count]);
                if count < bytes.len() {
                    self.steps.push_front(Data(&bytes[count..]));
                }
                Poll::Ready(Ok(count))
            }
            Some(Wait) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Some(Fail(kind)) => Poll::Ready(Err(kind.into())),
            None => {
                self.ended = true;
                Poll::Ready(Ok(0))
            }
        }
    }
}

/// A writer that executes its steps and then accepts all bytes. Counts writes, flushes and closes.
/// Of all polls of flushes and closes, only the first returns Pending.
#[derive(Debug, Default)]
struct Writer {
    steps: VecDeque<Step>,
    written: Vec<u8>,
    writes: usize,
    flushes: usize,
    closes: usize,
    waited: bool,
}

impl Writer {
    fn new(steps: impl IntoIterator<Item = Step>) -> Writer {
        Writer { steps: steps.into_iter().collect(), ..Writer::default() }
    }

    fn wait_once(&mut self, cx: &Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.waited, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl io::Write for Writer {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize>> {
        self.writes += 1;
        let count = match self.steps.pop_front() {
            Some(Data(most)) => most.len().min(buf.len()),
            Some(Wait) => {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Some(Fail(kind)) => return Poll::Ready(Err(kind.into())),
            None => buf.len(),
        };
        self.written.extend_from_slice(&buf[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        std::task::ready!(self.wait_once(cx));
        self.flushes += 1;
        Poll::Ready(Ok(()))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        std::task::ready!(self.wait_once(cx));
        self.closes += 1;
        Poll::Ready(Ok(()))
    }
}

/// Polls `future` at most `times` times, and then drops it.
fn poll_times<F: Future>(future: F, times: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    (0..times).find_map(|_| match future.as_mut().poll(&mut cx) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    })
}

fn kind<T: fmt::Debug>(result: Result<T>) -> ErrorKind {
    result.expect_err("the operation should have failed").kind()
}

// Reading

#[test]
fn reads_return_available_data() {
    block_on(async {
        let mut reader = Reader::new([Data(b"ab"), Wait, Data(b"cdef")]);
        let mut buf = [0; 4];
        assert_eq!(reader.read(&mut buf).await?, 2);
        assert_eq!(reader.read(&mut buf[..3]).await?, 3);
        assert_eq!(&buf[..3], b"cde");
        let (mut first, mut second) = ([0; 0], [0; 2]);
        let count = reader.read_vectored(&mut [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)]).await?;
        assert_eq!((count, second[0]), (1, b'f'));
        assert_eq!(reader.read(&mut buf).await?, 0);
        Result::Ok(())
    })
    .unwrap();
}

#[test]
fn read_exact_fills_buffer_or_reports_eof() {
    block_on(async {
        let mut buf = [0; 4];
        let mut reader = Reader::new([Data(b"a"), Wait, Fail(ErrorKind::Interrupted), Data(b"bcd"), Data(b"e")]);
        reader.read_exact(&mut buf).await.unwrap();
        assert_eq!(&buf, b"abcd");
        assert_eq!(kind(reader.read_exact(&mut buf).await), ErrorKind::UnexpectedEof);
        reader.read_exact(&mut []).await.expect("an empty buffer is always full, and the reader is not polled");
        let mut reader = Reader::new([Data(b"a"), Fail(ErrorKind::TimedOut)]);
        assert_eq!(kind(reader.read_exact(&mut buf).await), ErrorKind::TimedOut);
    });
}

#[test]
fn read_to_end_keeps_data_before_error() {
    block_on(async {
        let steps =
            [Data(b"ab"), Wait, Fail(ErrorKind::Interrupted), Data(b"c"), Fail(ErrorKind::TimedOut), Data(b"d")];
        let mut reader = Reader::new(steps);
        let mut all = b"> ".to_vec();
        assert_eq!(kind(reader.read_to_end(&mut all).await), ErrorKind::TimedOut);
        assert_eq!(all, b"> abc");
        assert_eq!(reader.read_to_end(&mut all).await.unwrap(), 1);
        assert_eq!(all, b"> abcd");
    });
}

#[test]
fn read_to_end_takes_any_length() {
    block_on(async {
        for len in [0usize, 1, 31, 32, 33, 4095, 4096, 4097, 1 << 20] {
            let bytes: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
            for capacity in [0, len, len + 1] {
                let mut all = Vec::with_capacity(capacity);
                assert_eq!(Cursor::new(&bytes).read_to_end(&mut all).await.unwrap(), len);
                assert!(all == bytes, "{len} bytes into {capacity}");
            }
        }
    });
}

#[test]
fn read_to_end_loses_nothing_when_dropped() {
    let steps = [Wait, Data(b"one "), Wait, Data(b"two "), Wait, Wait, Data(b"three")];
    for times in 0.. {
        let mut reader = Reader::new(steps.clone());
        let (mut bytes, mut text) = (Vec::new(), String::new());
        let done = poll_times(reader.read_to_end(&mut bytes), times).is_some();
        if !done {
            block_on(reader.read_to_end(&mut bytes)).unwrap();
        }
        assert_eq!(bytes, b"one two three", "dropped after {times} polls");

        let mut reader = Reader::new(steps.clone());
        if poll_times(reader.read_to_string(&mut text), times).is_none() {
            block_on(reader.read_to_string(&mut text)).unwrap();
        }
        assert_eq!(text, "one two three", "dropped after {times} polls");
        if done {
            return;
        }
    }
}

#[test]
fn invalid_utf8_is_an_error_and_is_kept() {
    block_on(async {
        let mut text = String::from("kept");
        let error = Reader::new([Data(b"a\xf0\x9f"), Data(b"b")]).read_to_string(&mut text).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (ErrorKind::InvalidData, "stream did not contain valid UTF-8")
        );
        assert_eq!(bytes_of(&error), b"a\xf0\x9fb");
        assert_eq!(text, "kept");

        // A character that is split over two reads is joined.
        let count = Reader::new([Data(b"\xf0\x9f"), Wait, Data(b"\xa6\x80")]).read_to_string(&mut text).await.unwrap();
        assert_eq!((count, text.as_str()), (4, "kept\u{1f980}"));

        // After an error of the reader, the text read before the error is kept, up to the last
        // complete character.
        let mut reader = Reader::new([Data(b"a\xf0"), Fail(ErrorKind::TimedOut)]);
        text.clear();
        assert_eq!(kind(reader.read_to_string(&mut text).await), ErrorKind::TimedOut);
        assert_eq!(text, "a");
    });
}

fn bytes_of(error: &Error) -> &[u8] {
    error
        .source()
        .and_then(|source| source.downcast_ref::<FromUtf8Error>())
        .expect("the bytes are the source")
        .as_bytes()
}

#[test]
fn take_and_chain_read_to_their_limits() {
    block_on(async {
        let mut reader = Reader::new([Data(b"abcdef")]);
        let mut text = String::new();
        reader.by_ref().take(6).read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "abcdef");
        let mut taken = (&b"abc"[..]).take(1);
        assert_eq!((taken.limit(), taken.get_ref().len()), (1, 3));
        taken.set_limit(2);
        text.clear();
        taken.read_to_string(&mut text).await.unwrap();
        assert_eq!((text.as_str(), taken.into_inner()), ("ab", &b"c"[..]));

        let chained = Reader::new([Data(b"a"), Wait]).chain(Reader::new([Wait, Data(b"b\nc")]));
        let lines: Result<Vec<String>> = BufReader::new(chained).lines().collect().await;
        assert_eq!(lines.unwrap(), ["ab", "c"]);
    });
}

/// An empty read must not be taken for the end of the first reader.
#[test]
fn chain_loses_nothing_when_the_buffers_are_empty() {
    block_on(async {
        let mut chained = (&b"ab"[..]).chain(&b"cd"[..]);
        assert_eq!(chained.read(&mut []).await.unwrap(), 0);
        assert_eq!(chained.read_vectored(&mut []).await.unwrap(), 0);
        assert_eq!(chained.read_vectored(&mut [IoSliceMut::new(&mut [])]).await.unwrap(), 0);
        let (mut head, mut tail) = ([0; 1], [0; 8]);
        let bufs = &mut [IoSliceMut::new(&mut head), IoSliceMut::new(&mut tail)];
        assert_eq!(chained.read_vectored(bufs).await.unwrap(), 2);
        assert_eq!((head, tail[0]), (*b"a", b'b'));
        assert_eq!(chained.get_ref(), (&&b""[..], &&b"cd"[..]));
        let bufs = &mut [IoSliceMut::new(&mut head), IoSliceMut::new(&mut tail)];
        assert_eq!(chained.read_vectored(bufs).await.unwrap(), 2);
        assert_eq!((head, tail[0]), (*b"c", b'd'));
        assert_eq!(chained.into_inner(), (&b""[..], &b""[..]));
    });
}

#[test]
fn bytes_iterates_across_interruptions() {
    block_on(async {
        let mut bytes =
            Reader::new([Data(b"ab"), Fail(ErrorKind::Interrupted), Wait, Data(b"c"), Fail(ErrorKind::TimedOut)])
                .bytes();
        for byte in *b"abc" {
            assert_eq!(bytes.next().await.unwrap().unwrap(), byte);
        }
        assert_eq!(kind(bytes.next().await.unwrap()), ErrorKind::TimedOut);
        assert!(bytes.next().await.is_none());
    });
}

#[test]
fn empty_ends_repeat_fills_and_sink_accepts() {
    block_on(async {
        let mut buf = [1; 3];
        assert_eq!(io::empty().read(&mut buf).await.unwrap(), 0);
        io::repeat(7).read_exact(&mut buf).await.unwrap();
        assert_eq!(buf, [7; 3]);
        io::sink().write_all(&buf).await.unwrap();
        io::sink().close().await.unwrap();
    });
}

#[test]
fn cursor_reads_writes_and_seeks() {
    block_on(async {
        let mut cursor = Cursor::new(Vec::new());
        cursor.write_all(b"hello").await?;
        assert_eq!(cursor.seek(SeekFrom::Start(1)).await?, 1);
        cursor.write_all(b"E").await?;
        assert_eq!(cursor.seek(SeekFrom::Current(-2)).await?, 0);
        let mut text = String::new();
        cursor.read_to_string(&mut text).await?;
        assert_eq!((text.as_str(), cursor.position()), ("hEllo", 5));
        assert_eq!(kind(cursor.seek(SeekFrom::End(-6)).await), ErrorKind::InvalidInput);
        Result::Ok(())
    })
    .unwrap();
}

// Lines and pieces

fn buffered(steps: impl IntoIterator<Item = Step>) -> BufReader<Reader> {
    BufReader::with_capacity(4, Reader::new(steps))
}

#[test]
fn lines_end_at_lf_crlf_or_eof() {
    let cases: [(&'static [u8], &[&str]); 9] = [
        (b"", &[]),
        (b"\n", &[""]),
        (b"\r\n", &[""]),
        (b"a", &["a"]),
        (b"a\nb", &["a", "b"]),
        (b"a\nb\n", &["a", "b"]),
        (b"one\r\n\r\nthree", &["one", "", "three"]),
        (b"a\rb\r\r\nc\r", &["a\rb\r", "c\r"]),
        (b"longer than the buffer of four bytes\nx", &["longer than the buffer of four bytes", "x"]),
    ];
    for (input, lines) in cases {
        let seen: Result<Vec<String>> = block_on(buffered([Data(input)]).lines().collect());
        assert_eq!(seen.unwrap(), lines, "{}", input.escape_ascii());
    }
}

#[test]
fn line_continues_after_error_or_wait() {
    block_on(async {
        let steps =
            [Data(b"on"), Wait, Fail(ErrorKind::TimedOut), Data(b"e\ntw"), Fail(ErrorKind::Interrupted), Data(b"o")];
        let mut lines = buffered(steps.clone()).lines();
        assert_eq!(kind(lines.next().await.unwrap()), ErrorKind::TimedOut);
        assert_eq!(lines.next().await.unwrap().unwrap(), "one");
        assert_eq!(lines.next().await.unwrap().unwrap(), "two");
        assert!(lines.next().await.is_none());

        let mut pieces = buffered(steps.clone()).split(b'\n');
        assert_eq!(kind(pieces.next().await.unwrap()), ErrorKind::TimedOut);
        assert_eq!(pieces.next().await.unwrap().unwrap(), b"one");
        assert_eq!(pieces.next().await.unwrap().unwrap(), b"two");

        let mut reader = buffered(steps);
        let mut line = String::from("> ");
        assert_eq!(kind(reader.read_line(&mut line).await), ErrorKind::TimedOut);
        assert_eq!(line, "> on");
        assert_eq!(reader.read_line(&mut line).await.unwrap(), 2);
        assert_eq!(line, "> one\n");
    });
}

#[test]
fn read_line_loses_nothing_when_dropped() {
    let steps = [Wait, Data(b"\xc3\xa9t"), Wait, Data(b"\xc3\xa9\n"), Wait, Data(b"next")];
    for times in 0..8 {
        let (mut line, mut bytes) = (String::new(), Vec::new());
        let mut reader = buffered(steps.clone());
        if poll_times(reader.read_line(&mut line), times).is_none() {
            block_on(reader.read_line(&mut line)).unwrap();
        }
        assert_eq!(line, "\u{e9}t\u{e9}\n", "dropped after {times} polls");

        let mut reader = buffered(steps.clone());
        if poll_times(reader.read_until(b'\n', &mut bytes), times).is_none() {
            block_on(reader.read_until(b'\n', &mut bytes)).unwrap();
        }
        assert_eq!(bytes, "\u{e9}t\u{e9}\n".as_bytes(), "dropped after {times} polls");

        let mut lines = buffered(steps.clone()).lines();
        let mut seen: Vec<_> = poll_times(lines.next(), times).flatten().into_iter().collect();
        seen.extend(block_on(lines.collect::<Vec<_>>()));
        let seen: Vec<String> = seen.into_iter().map(Result::unwrap).collect();
        assert_eq!(seen, ["\u{e9}t\u{e9}", "next"], "dropped after {times} polls");
    }
}

#[test]
fn invalid_utf8_line_keeps_its_bytes() {
    block_on(async {
        let mut reader = buffered([Data(b"ok\n\xff\xfebad\nfine\n\xe2\x82")]);
        let mut line = String::new();
        assert_eq!(reader.read_line(&mut line).await.unwrap(), 3);
        let error = reader.read_line(&mut line).await.unwrap_err();
        assert_eq!((error.kind(), bytes_of(&error)), (ErrorKind::InvalidData, &b"\xff\xfebad\n"[..]));
        assert_eq!(line, "ok\n");
        assert_eq!(reader.read_line(&mut line).await.unwrap(), 5);
        assert_eq!(line, "ok\nfine\n");
        let error = reader.read_line(&mut line).await.unwrap_err();
        assert_eq!(bytes_of(&error), b"\xe2\x82");

        let mut lines = buffered([Data(b"\xff\r\nfine\n")]).lines();
        let error = lines.next().await.unwrap().unwrap_err();
        assert_eq!(bytes_of(&error), b"\xff");
        assert_eq!(lines.next().await.unwrap().unwrap(), "fine");
        assert!(lines.next().await.is_none());
    });
}

fn is_too_long(error: &Error, max: usize) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<TooLong>());
    error.kind() == ErrorKind::InvalidData && inner.is_some_and(|inner| inner.max() == max)
}

/// Up to the bound, which includes the delimiter, the results are those of an unbounded read. A
/// further byte is an error, and the bytes before it are consumed.
#[test]
fn bounded_read_stops_at_bound() {
    block_on(async {
        let input = b"four\nsix...\n\nend";
        for max in 0..12 {
            let steps = [Wait, Data(input), Wait];
            let fits = |line: &&str| line.len() < max;
            let all = ["four", "six...", "", "end"];
            // The last line is shorter than the second one, so it fits if it is reached.
            let expected: Vec<&str> =
                all[..3].iter().copied().take_while(fits).chain((max >= 7).then_some("end")).collect();
            let mut lines = buffered(steps.clone()).lines_bounded(max);
            let mut seen = Vec::new();
            let mut failed = None;
            while let Some(line) = lines.next().await {
                match line {
                    Ok(line) => seen.push(line),
                    Err(error) => failed = Some(error),
                }
            }
            assert_eq!(seen, expected, "{max}");
            assert_eq!(failed.is_none(), max >= 7, "{max}");
            assert!(failed.is_none_or(|error| is_too_long(&error, max)), "{max}");
            let mut pieces = buffered(steps.clone()).split_bounded(b'\n', max);
            for line in expected {
                assert_eq!(pieces.next().await.unwrap().unwrap(), line.as_bytes(), "{max}");
            }
            if max < 7 {
                assert!(is_too_long(&pieces.next().await.unwrap().unwrap_err(), max));
                assert!(pieces.next().await.is_none() && pieces.next().await.is_none(), "the stream stays at its end");
            }

            let mut reader = buffered(steps.clone());
            let (mut text, mut bytes) = (String::from("> "), b"> ".to_vec());
            let read = reader.read_line_bounded(&mut text, max).await;
            if max >= 5 {
                assert_eq!((read.unwrap(), text.as_str()), (5, "> four\n"));
            } else {
                assert!(is_too_long(&read.unwrap_err(), max));
                assert_eq!(text.as_bytes(), [b"> ", &input[..max]].concat());
            }
            // The rest can be read.
            let mut rest = Vec::new();
            reader.read_to_end(&mut rest).await.unwrap();
            assert_eq!(rest, input[max.min(5)..]);
            let mut reader = buffered(steps);
            match reader.read_until_bounded(b'.', &mut bytes, max).await {
                Ok(count) => assert_eq!((count, max >= 9), (9, true)),
                Err(error) => assert!(max < 9 && is_too_long(&error, max)),
            }
            assert_eq!(bytes, [b"> ", &input[..max.min(9)]].concat());
            rest.clear();
            reader.read_to_end(&mut rest).await.unwrap();
            assert_eq!(rest, input[max.min(9)..]);
        }
    });
}

/// An endless line fails at the bound. A last line without a delimiter may be as long as the bound.
#[test]
fn endless_line_fails_at_bound() {
    block_on(async {
        let mut lines = BufReader::new(io::repeat(b'x')).lines_bounded(1 << 16);
        assert!(is_too_long(&lines.next().await.unwrap().unwrap_err(), 1 << 16));
        assert!(lines.next().await.is_none());
        let mut lines = buffered([Data(b"12345678"), Wait]).lines_bounded(8);
        assert_eq!(lines.next().await.unwrap().unwrap(), "12345678");
        assert!(lines.next().await.is_none());
        // An error of the reader in the middle of a line does not restart the count.
        let mut lines = buffered([Data(b"1234"), Fail(ErrorKind::TimedOut), Data(b"56789")]).lines_bounded(8);
        assert_eq!(kind(lines.next().await.unwrap()), ErrorKind::TimedOut);
        assert!(is_too_long(&lines.next().await.unwrap().unwrap_err(), 8));
        // A truncated character is not in the text.
        let mut reader = buffered([Data("\u{e9}\u{e9}\n".as_bytes())]);
        let mut text = String::new();
        assert!(is_too_long(&reader.read_line_bounded(&mut text, 3).await.unwrap_err(), 3));
        assert_eq!(text, "\u{e9}");
        let mut all = String::new();
        assert_eq!((&b""[..]).read_line_bounded(&mut all, 0).await.unwrap(), 0);
    });
}

#[test]
fn read_until_appends_with_the_delimiter() {
    block_on(async {
        let mut reader = buffered([Data(b"aXbbbbbbX"), Wait, Data(b"cc")]);
        let mut piece = b"> ".to_vec();
        for (count, all) in [(2, &b"> aX"[..]), (7, b"> aXbbbbbbX"), (2, b"> aXbbbbbbXcc")] {
            assert_eq!(reader.read_until(b'X', &mut piece).await.unwrap(), count);
            assert_eq!(piece, all);
        }
        let pieces = |input| async move {
            let pieces: Result<Vec<Vec<u8>>> = buffered([Data(input)]).split(b'\xff').collect().await;
            pieces.unwrap()
        };
        assert_eq!(pieces(b"a\xff\xffb\xff").await, [&b"a"[..], b"", b"b"]);
        assert_eq!(pieces(b"\xff").await, [b""]);
        assert!(pieces(b"").await.is_empty());
    });
}

// Writing

#[test]
fn write_all_continues_after_waits_and_interruptions() {
    block_on(async {
        let mut writer = Writer::new([Data(b"."), Wait, Fail(ErrorKind::Interrupted), Data(b"..")]);
        writer.write_all(b"abcdef").await.unwrap();
        assert_eq!((writer.written.as_slice(), writer.flushes), (&b"abcdef"[..], 0));
        let mut writer = Writer::new([Data(b"."), Data(b"")]);
        assert_eq!(kind(writer.write_all(b"abc").await), ErrorKind::WriteZero);
        let mut writer = Writer::new([Data(b"."), Fail(ErrorKind::BrokenPipe)]);
        assert_eq!(kind(writer.write_all(b"abc").await), ErrorKind::BrokenPipe);
        let mut writer = Writer::default();
        writer.write_all(b"").await.unwrap();
        assert_eq!(writer.writes, 0);
        assert_eq!(writer.write_vectored(&[IoSlice::new(b""), IoSlice::new(b"ab")]).await.unwrap(), 2);
    });
}

#[test]
fn write_fmt_writes_all_and_flushes() {
    block_on(async {
        let mut writer = Writer::new([Data(b"."), Wait, Data(b"..")]);
        let name = 'a';
        write!(writer, "{name}-{:>3}", 7).await.unwrap();
        writeln!(writer).await.unwrap();
        assert_eq!((writer.written.as_slice(), writer.flushes), (&b"a-  7\n"[..], 2));
        let mut writer = Writer::new([Fail(ErrorKind::BrokenPipe)]);
        assert_eq!(kind(write!(writer, "x").await), ErrorKind::BrokenPipe);
    });
}

#[test]
fn write_fmt_reports_failing_display() {
    struct Broken;
    impl fmt::Display for Broken {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("half")?;
            Err(fmt::Error)
        }
    }
    block_on(async {
        let mut writer = Writer::default();
        let error = write!(writer, "{Broken}").await.unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Other, "formatter error"));
        assert_eq!((writer.writes, writer.flushes), (0, 0));
    });
}

// BufWriter

#[test]
fn buf_writer_buffers_and_keeps_order() {
    block_on(async {
        let mut out = BufWriter::with_capacity(4, Writer::new([Data(b"."), Wait]));
        out.write_all(b"ab").await.unwrap();
        assert_eq!((out.buffer(), out.get_ref().writes), (&b"ab"[..], 0));
        out.write_all(b"cde").await.unwrap();
        assert_eq!((out.buffer(), out.get_ref().written.as_slice()), (&b"cde"[..], &b"ab"[..]));
        out.write_all(b"as large as the buffer").await.unwrap();
        assert!(out.buffer().is_empty());
        out.write_vectored(&[IoSlice::new(b"1"), IoSlice::new(b"2")]).await.unwrap();
        assert_eq!(out.buffer(), b"12");
        out.flush().await.unwrap();
        assert_eq!((out.get_ref().flushes, out.get_ref().closes), (1, 0));
        out.write_all(b"!").await.unwrap();
        out.close().await.unwrap();
        assert_eq!((out.get_ref().flushes, out.get_ref().closes), (1, 1));
        assert_eq!(out.get_ref().written, b"abcdeas large as the buffer12!");
    });
}

#[test]
fn buf_writer_without_capacity_passes_through() {
    block_on(async {
        let mut out = BufWriter::with_capacity(0, Writer::default());
        out.write_all(b"a").await.unwrap();
        out.write_all(b"").await.unwrap();
        assert_eq!((out.buffer(), out.get_ref().written.as_slice()), (&b""[..], &b"a"[..]));
    });
}

#[test]
fn into_inner_flushes_or_returns_buffer() {
    block_on(async {
        let mut out = BufWriter::new(Writer::default());
        out.write_all(b"abc").await.unwrap();
        let writer = out.into_inner().await.unwrap();
        assert_eq!((writer.written.as_slice(), writer.flushes), (&b"abc"[..], 1));

        let mut out = BufWriter::new(Writer::new([Data(b"."), Fail(ErrorKind::TimedOut)]));
        out.write_all(b"abc").await.unwrap();
        let failed = out.into_inner().await.unwrap_err();
        assert_eq!(failed.error().kind(), ErrorKind::TimedOut);
        let out = failed.into_inner();
        assert_eq!(out.buffer(), b"bc");
        assert_eq!(out.into_inner().await.unwrap().written, b"abc", "the write can be tried again");

        let mut out = BufWriter::new(Writer::new([Data(b"")]));
        out.write_all(b"abc").await.unwrap();
        let error: Error = out.into_inner().await.unwrap_err().into();
        assert_eq!(error.kind(), ErrorKind::WriteZero);
    });
}

#[test]
fn buf_writer_survives_dropped_operations() {
    let steps = [Wait, Data(b"."), Wait, Data(b".."), Fail(ErrorKind::TimedOut), Wait, Data(b"."), Wait];
    for times in 0..10 {
        let mut out = BufWriter::with_capacity(6, Writer::new(steps.clone()));
        block_on(out.write_all(b"abcde")).unwrap();
        let flushed = poll_times(out.flush(), times);
        // The flush may have sent some bytes. Otherwise this write has to make room first.
        while block_on(out.write_all(b"XY")).is_err() {}
        while block_on(out.flush()).is_err() {}
        let written = out.into_inner();
        let written = block_on(written).unwrap().written;
        assert_eq!(written, b"abcdeXY", "dropped after {times} polls, {flushed:?}");
    }
}

#[test]
fn seek_flushes_buf_writer() {
    block_on(async {
        let mut out = BufWriter::with_capacity(3, Cursor::new(Vec::new()));
        out.write_all(b"ab").await.unwrap();
        assert_eq!(out.seek(SeekFrom::Current(0)).await.unwrap(), 2);
        assert_eq!(out.get_ref().get_ref(), b"ab");
        assert_eq!(out.seek(SeekFrom::Start(1)).await.unwrap(), 1);
        out.write_all(b"Bc").await.unwrap();
        assert_eq!(out.into_inner().await.unwrap().into_inner(), b"aBc");
    });
}

// copy

#[test]
fn copy_moves_all_data_and_flushes() {
    block_on(async {
        // The reader panics if it is polled after its end. The first poll of the writer's flush
        // returns Pending.
        let steps = [Data(b"one "), Wait, Fail(ErrorKind::Interrupted), Data(b"two "), Data(b"three")];
        let mut reader = Reader::new(steps);
        let mut writer = Writer::new([Wait, Data(b"."), Fail(ErrorKind::Interrupted), Data(b"...")]);
        assert_eq!(io::copy(&mut reader, &mut writer).await.unwrap(), 13);
        assert_eq!((writer.written.as_slice(), writer.closes), (&b"one two three"[..], 0));
        assert!(writer.flushes > 0);
        let mut writer = Writer::default();
        assert_eq!(io::copy(&mut io::empty(), &mut writer).await.unwrap(), 0);
        assert_eq!((writer.writes, writer.flushes), (0, 1));
    });
}

#[test]
fn copy_accepts_unsized_and_large_inputs() {
    block_on(async {
        let input: Vec<u8> = (0..300_000u32).flat_map(u32::to_le_bytes).collect();
        let mut cursor = Cursor::new(&input);
        let mut output = Vec::new();
        let reader: &mut (dyn io::Read + Unpin) = &mut cursor;
        let writer: &mut (dyn io::Write + Unpin) = &mut output;
        assert_eq!(io::copy(reader, writer).await.unwrap(), input.len() as u64);
        assert!(output == input);
    });
}

#[test]
fn copy_flushes_before_waiting_for_reader() {
    let mut reader = Reader::new([Data(b"question"), Wait, Wait, Wait]);
    let mut out = BufWriter::new(Writer::default());
    {
        let mut copy = pin!(io::copy(&mut reader, &mut out));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(copy.as_mut().poll(&mut cx).is_pending());
        assert!(copy.as_mut().poll(&mut cx).is_pending());
    }
    assert_eq!(out.get_ref().written, b"question");
}

#[test]
fn copy_returns_errors_unchanged() {
    block_on(async {
        let failing = || Reader::new([Data(b"abc"), Fail(ErrorKind::ConnectionReset)]);
        let error = io::copy(&mut failing(), &mut io::sink()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert!(error.get_ref().is_none(), "the error is not wrapped");
        assert_eq!(kind(io::copy(&mut failing(), &mut Writer::new([Data(b"")])).await), ErrorKind::WriteZero);
        let mut writer = Writer::new([Fail(ErrorKind::BrokenPipe)]);
        assert_eq!(kind(io::copy(&mut failing(), &mut writer).await), ErrorKind::BrokenPipe);
    });
}

#[test]
fn copy_in_memory_yields() {
    let endless = async { io::copy(&mut io::repeat(1), &mut io::sink()).await };
    let error = block_on(io::timeout(Duration::from_millis(5), endless)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
}

// timeout

#[test]
fn io_timeout_returns_result_or_timed_out() {
    block_on(async {
        assert_eq!(io::timeout(Duration::MAX, async { Ok(1) }).await.unwrap(), 1);
        assert_eq!(io::timeout(Duration::ZERO, async { Ok(1) }).await.unwrap(), 1, "a ready result is not discarded");
        let own = async { Err::<(), _>(Error::other("mine")) };
        assert_eq!(io::timeout(Duration::ZERO, own).await.unwrap_err().to_string(), "mine");
        let begin = Instant::now();
        let never = netpoll::future::pending::<Result<()>>;
        for duration in [Duration::ZERO, Duration::from_millis(10)] {
            let error = io::timeout(duration, never()).await.unwrap_err();
            assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::TimedOut, "future timed out"));
            assert!(begin.elapsed() >= duration);
        }
    });
}

#[test]
fn timeout_drops_the_operation() {
    struct OnDrop(Arc<AtomicUsize>);
    impl Drop for OnDrop {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let drops = Arc::new(AtomicUsize::new(0));
    let guard = OnDrop(drops.clone());
    let result = block_on(io::timeout(Duration::from_millis(1), async move {
        let _guard = guard;
        netpoll::future::pending::<Result<()>>().await
    }));
    assert_eq!((kind(result), drops.load(Ordering::Relaxed)), (ErrorKind::TimedOut, 1));
}

// Wakers

/// A waker that counts its wake-ups.
#[derive(Default)]
struct Counter(Mutex<usize>);

impl Wake for Counter {
    fn wake(self: Arc<Self>) {
        *self.0.lock().unwrap() += 1;
    }
}

#[test]
fn timeout_wakes_last_polling_task() {
    let (first, last) = (Arc::new(Counter::default()), Arc::new(Counter::default()));
    let mut future = Box::pin(io::timeout(Duration::from_millis(100), netpoll::future::pending::<Result<()>>()));
    let begin = Instant::now();
    for counter in [&first, &last] {
        let waker = Waker::from(counter.clone());
        if future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            return assert!(
                begin.elapsed() >= Duration::from_millis(100),
                "possible only if the machine takes that long for two polls"
            );
        }
    }
    while *last.0.lock().unwrap() == 0 {
        assert!(begin.elapsed() < Duration::from_secs(180), "the task was not woken");
        std::thread::yield_now();
    }
    let mut cx = Context::from_waker(Waker::noop());
    assert!(future.as_mut().poll(&mut cx).is_ready());
}
