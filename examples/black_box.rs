//! Finds the cause of a stall with the black box, which is the record of the workers' last events.
//!
//! ```text
//! cargo run --release --example black_box
//! cargo run --release --example black_box -- TRACE.json PICTURE.svg
//! ```
//!
//! An echo server and its clients share one worker. A task named `report` then computes for 30 ms
//! without yielding. The clients stall until the runtime adds a spare worker. The program prints
//! the events around the stall. It also writes a trace of all events for ui.perfetto.dev to the
//! first argument, and a picture of the stall to the second argument, if these arguments are given.

use std::fmt::Write as _;
use std::io;
use std::time::{Duration, Instant};

use netpoll::net::{TcpListener, TcpStream};
use netpoll::prelude::*;
use netpoll::rt::{self, BlackBox, WorkerEvent, WorkerEventKind};
use netpoll::task;

/// The length of the periods that are shown before and after the longest turn.
const AROUND: Duration = Duration::from_millis(2);

async fn echo(stream: TcpStream) -> io::Result<()> {
    let mut buf = [0; 64];
    loop {
        let count = stream.read(&mut buf).await?;
        if count == 0 {
            return Ok(());
        }
        stream.write_all(&buf[..count]).await?;
    }
}

async fn client(addr: std::net::SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect(addr).await?;
    let (begin, mut buf) = (Instant::now(), [0; 4]);
    while begin.elapsed() < Duration::from_millis(200) {
        stream.write_all(b"ping").await?;
        stream.read_exact(&mut buf).await?;
        task::sleep(Duration::from_micros(500)).await;
    }
    Ok(())
}

async fn report() -> BlackBox {
    task::sleep(Duration::from_millis(100)).await;
    // This is the bug: the computation should run in `task::spawn_blocking`.
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(30) {
        std::hint::spin_loop();
    }
    task::sleep(Duration::from_millis(1)).await;
    rt::black_box()
}

fn main() -> io::Result<()> {
    rt::Builder::new().workers(1).start()?;
    let black_box = task::block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?;
        task::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                task::spawn(echo(stream));
            }
        });
        let clients: Vec<_> = (0..8).map(|_| task::spawn(client(addr))).collect();
        let black_box = task::Builder::new().name("report".to_owned()).spawn(report())?.await;
        for client in clients {
            client.await?;
        }
        io::Result::Ok(black_box)
    })?;

    let is_turn = |event: &&WorkerEvent| matches!(event.kind, WorkerEventKind::Turn { .. });
    let longest = black_box.events.iter().filter(is_turn).max_by_key(|event| event.lasted).expect("tasks have run");
    let (begin, end) = (longest.ago + AROUND, (longest.ago - longest.lasted).saturating_sub(AROUND));
    let mut shown = black_box.clone();
    shown.events.retain(|event| event.ago <= begin && event.ago >= end);
    print!("{shown}");
    println!("the longest turn took {:.1?}", longest.lasted);

    let mut arguments = std::env::args().skip(1);
    if let Some(path) = arguments.next() {
        black_box.write_to(path)?;
    }
    if let Some(path) = arguments.next() {
        std::fs::write(path, picture(&shown, begin, end))?;
    }
    Ok(())
}

/// Draws the turns of each worker, with one row per worker. A turn that ends after the picture is
/// cut off. A turn that began before the picture is not drawn.
fn picture(shown: &BlackBox, begin: Duration, end: Duration) -> String {
    const WIDTH: f64 = 960.0;
    const LEFT: f64 = 80.0;
    const ROW: f64 = 34.0;
    let mut workers: Vec<_> = shown.events.iter().filter_map(|event| event.worker).collect();
    workers.sort_unstable();
    workers.dedup();
    let scale = (WIDTH - LEFT - 10.0) / (begin - end).as_secs_f64();
    let height = ROW * (workers.len() as f64 + 1.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (row, worker) in workers.iter().enumerate() {
        let top = ROW * row as f64 + 8.0;
        let _ = writeln!(svg, "<text x=\"6\" y=\"{:.0}\">worker {worker}</text>", top + 16.0);
        for event in shown.events.iter().filter(|event| event.worker == Some(*worker)) {
            let WorkerEventKind::Turn { task, calls } = &event.kind else { continue };
            let left = LEFT + (begin - event.ago).as_secs_f64() * scale;
            let width = (event.lasted.as_secs_f64() * scale).clamp(0.5, WIDTH - left);
            let label = escaped(shown.label(*task).unwrap_or_default());
            let is_long = event.lasted > Duration::from_millis(5);
            let fill = if is_long {
                "#c0392b"
            } else if calls.is_empty() {
                "#95a5a6"
            } else {
                "#2980b9"
            };
            let _ = writeln!(
                svg,
                "<rect x=\"{left:.1}\" y=\"{top:.0}\" width=\"{width:.1}\" height=\"22\" fill=\"{fill}\"/>"
            );
            if is_long {
                let _ = writeln!(
                    svg,
                    "<text x=\"{:.1}\" y=\"{:.0}\" fill=\"white\">task {task} {label}, {:.1?}</text>",
                    left + 6.0,
                    top + 16.0,
                    event.lasted
                );
            }
        }
    }
    let _ = writeln!(
        svg,
        "<text x=\"{LEFT}\" y=\"{:.0}\">{:.1?} in total. Blue: turns with socket calls; grey: other turns; red: longer than 5 ms</text>\n</svg>",
        height - 10.0,
        begin - end
    );
    svg
}

/// Returns `text` as the content of an XML element.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
