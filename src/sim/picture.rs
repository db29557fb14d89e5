//! The picture of a run as SVG: hosts are columns, packets are arrows, time runs downwards.
//!
//! Each departure, arrival, loss at an arrival and note in the log has its own row, in the order of
//! the log. So times are not to scale, but microseconds and hours fit into one picture. The
//! departure of a packet that was held back is in the row in which the packet was held. An arrow
//! leads from the row of the departure to that of the arrival. Packets in the log have no numbers,
//! so an arrival is assigned to the oldest packet with the same addresses and fields that has not
//! arrived yet.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::net::SocketAddr;

use super::machine::kernel::Kernel;
use super::machine::kernel::log::{Fate, Summary, What, seconds};
use super::report;

/// The maximum number of rows. If the log has more, the last rows are shown.
const ROWS_MAX: usize = 2000;

const TIME_WIDTH: usize = 110;
const COLUMN_WIDTH: usize = 230;
const ROW_HEIGHT: usize = 18;
const TOP: usize = 56;

const STYLE: &str = "\
text{font:11px sans-serif;fill:#222}.h{font-weight:bold;font-size:13px}.t{fill:#777;text-anchor:end}\
.n{font-style:italic;fill:#555}.l{paint-order:stroke;stroke:#fff;stroke-width:3px}.c{stroke:#bbb}\
.p{stroke:#1f5f99;fill:none}.d{stroke:#8e44ad;fill:none}.f{stroke:#888;stroke-dasharray:4 3;fill:none}\
.x{stroke:#c0392b;stroke-dasharray:4 3;fill:none}.k{stroke:#c0392b;stroke-width:2}";

/// The fate of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The packet has not arrived yet, or is held back.
    OnTheWay,
    /// The packet arrived in this row.
    Arrived(usize),
    /// The packet was lost when it was sent.
    Lost,
    /// The packet was lost at the time of its arrival, in this row: a partition had begun, or the
    /// receiver was down.
    LostAt(usize),
}

/// A packet, which is drawn as an arrow.
struct Arrow {
    row: usize,
    at: u64,
    from: usize,
    to: usize,
    text: String,
    end: End,
    is_copy: bool,
    is_held: bool,
}

/// The packets and notes of a log.
#[derive(Default)]
struct Flow {
    /// The virtual times of the rows, in nanoseconds.
    rows: Vec<u64>,
    arrows: Vec<Arrow>,
    /// The row, host and text of each note.
    notes: Vec<(usize, usize, String)>,
}

/// The addresses and the text of a packet, without the reason for a loss.
type Key = (SocketAddr, SocketAddr, String);

impl Flow {
    fn new(kernel: &Kernel) -> Flow {
        let mut flow = Flow::default();
        let mut on_the_way: BTreeMap<Key, VecDeque<usize>> = BTreeMap::new();
        let mut last: BTreeMap<Key, usize> = BTreeMap::new();
        for entry in kernel.log.entries() {
            let (at, host) = (entry.at, usize::from(entry.host));
            match &entry.what {
                What::Call(..) => {}
                What::Text(text) => {
                    let row = flow.row(at);
                    flow.notes.push((row, host, text.to_string()));
                }
                What::Packet(summary, fate @ (Fate::Sent | Fate::Held)) => {
                    let waiting = on_the_way.entry(key(summary, *fate)).or_default();
                    let held = waiting.iter().copied().find(|&index| flow.arrows[index].is_held);
                    if let Some(index) = held.filter(|_| *fate == Fate::Sent) {
                        // The packet was held back and is now released.
                        (flow.arrows[index].is_held, flow.arrows[index].at) = (false, at);
                        continue;
                    }
                    let (from, to) = (host, report::host_of(kernel, summary.dst.ip(), entry.host));
                    let (is_held, text) = (*fate == Fate::Held, summary.text.to_string());
                    flow.rows.push(at);
                    let (row, end) = (flow.rows.len() - 1, End::OnTheWay);
                    flow.arrows.push(Arrow { row, at, from, to, text, end, is_copy: false, is_held });
                    let index = flow.arrows.len() - 1;
                    waiting.push_back(index);
                    last.insert(key(summary, *fate), index);
                }
                What::Packet(summary, fate @ (Fate::Arrived | Fate::Dropped(_))) => {
                    let key = key(summary, *fate);
                    let waiting = on_the_way.get_mut(&key);
                    // If a packet is lost when it is sent, it is the packet added last, because its
                    // loss is the next entry.
                    let is_at_departure = matches!(fate, Fate::Dropped(_))
                        && last.get(&key).is_some_and(|&index| {
                            let arrow = &flow.arrows[index];
                            arrow.end == End::OnTheWay && arrow.at == at && arrow.from == host
                        });
                    let index = waiting.and_then(|waiting| match is_at_departure {
                        true => waiting.pop_back(),
                        false => waiting.pop_front(),
                    });
                    if let Some(index) = index.filter(|_| is_at_departure) {
                        flow.arrows[index].end = End::Lost;
                        flow.arrows[index].text = summary.text.to_string();
                        continue;
                    }
                    // A packet without a departure is a duplicate, was sent by a router, or left
                    // before the first entry of the log.
                    let row = flow.row(at);
                    let Some(original) = index.or_else(|| last.get(&key).copied()) else {
                        flow.notes.push((row, host, format!("{} from {}", report::fields(&summary.text), summary.src)));
                        continue;
                    };
                    let end = if *fate == Fate::Arrived { End::Arrived(row) } else { End::LostAt(row) };
                    let text = summary.text.to_string();
                    if index.is_some() {
                        (flow.arrows[original].end, flow.arrows[original].text) = (end, text);
                    } else {
                        let Arrow { row, at, from, to, .. } = flow.arrows[original];
                        flow.arrows.push(Arrow { row, at, from, to, text, end, is_copy: true, is_held: false });
                    }
                }
            }
        }
        flow
    }

    /// Adds a row with time `at`, and returns its index.
    fn row(&mut self, at: u64) -> usize {
        self.rows.push(at);
        self.rows.len() - 1
    }
}

fn key(summary: &Summary, fate: Fate) -> Key {
    let text = match fate {
        Fate::Dropped(_) => summary.text.rsplit_once(" (").map_or(&*summary.text, |(text, _)| text),
        _ => &summary.text,
    };
    (summary.src, summary.dst, text.to_owned())
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            // XML does not permit most control characters.
            char if char.is_control() => escaped.push(' '),
            char => escaped.push(char),
        }
    }
    escaped
}

/// Returns the picture of the log.
pub(super) fn svg(kernel: &Kernel) -> String {
    let flow = Flow::new(kernel);
    let first = flow.rows.len().saturating_sub(ROWS_MAX);
    // Hosts without a packet or note in the rows that are shown have no column.
    let mut columns: Vec<Option<usize>> = vec![None; kernel.hosts.len()];
    let of_arrows = flow.arrows.iter().filter(|arrow| arrow.row >= first).flat_map(|arrow| [arrow.from, arrow.to]);
    let of_notes = flow.notes.iter().filter(|note| note.0 >= first).map(|note| note.1);
    of_arrows.chain(of_notes).for_each(|host| columns[host] = Some(0));
    for (number, column) in columns.iter_mut().flatten().enumerate() {
        *column = number;
    }
    let count = columns.iter().flatten().count();
    let x = |host: usize| TIME_WIDTH + COLUMN_WIDTH / 2 + columns[host].unwrap_or_default() * COLUMN_WIDTH;
    let y = |row: usize| TOP + (row - first) * ROW_HEIGHT;
    let (width, height) =
        (TIME_WIDTH + count.max(1) * COLUMN_WIDTH, TOP + (flow.rows.len() - first) * ROW_HEIGHT + ROW_HEIGHT);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\">\n\
         <style>{STYLE}</style>\n<defs><marker id=\"a\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" markerWidth=\"7\" \
         markerHeight=\"7\" orient=\"auto\"><path d=\"M0 0L8 4L0 8z\" fill=\"#1f5f99\"/></marker></defs>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    if first > 0 {
        let _ = writeln!(text, "<text x=\"4\" y=\"12\" class=\"n\">{first} earlier events are not shown</text>");
    }
    for (host, _) in columns.iter().enumerate().filter(|(_, column)| column.is_some()) {
        let (x, name) = (x(host), escape(&kernel.hosts[host].name));
        let _ = writeln!(text, "<text x=\"{x}\" y=\"30\" class=\"h\" text-anchor=\"middle\">{name}</text>");
        let _ = writeln!(text, "<path d=\"M{x} 38V{height}\" class=\"c\"/>");
    }
    for (row, at) in flow.rows.iter().enumerate().skip(first) {
        if row == first || flow.rows[row - 1] != *at {
            let _ = writeln!(
                text,
                "<text x=\"{}\" y=\"{}\" class=\"t\">{} s</text>",
                TIME_WIDTH - 8,
                y(row) + 4,
                seconds(*at)
            );
        }
    }
    // The labels are drawn after all arrows, so that no arrow covers a label.
    let mut labels = String::new();
    for arrow in flow.arrows.iter().filter(|arrow| arrow.row >= first) {
        let (x, to, row) = (x(arrow.from), x(arrow.to), y(arrow.row));
        draw(&mut text, arrow, x, to, row, y);
        if !arrow.is_copy {
            label(&mut labels, arrow, x, to, row);
        }
    }
    text.push_str(&labels);
    for (row, host, note) in flow.notes.iter().filter(|note| note.0 >= first) {
        let (x, y, note) = (x(*host), y(*row), escape(note));
        let _ = writeln!(
            text,
            "<circle cx=\"{x}\" cy=\"{y}\" r=\"3\"/><text x=\"{}\" y=\"{}\" class=\"n l\">{note}</text>",
            x + 8,
            y + 4
        );
    }
    text.push_str("</svg>\n");
    text
}

/// Draws a packet as an arrow from the column at `x` to the column at `to`.
fn draw(text: &mut String, arrow: &Arrow, x: usize, to: usize, y: usize, row: impl Fn(usize) -> usize) {
    let (class, mark, end) = match arrow.end {
        End::Arrived(_) if arrow.is_copy => ("d", " marker-end=\"url(#a)\"", to),
        End::Arrived(_) => ("p", " marker-end=\"url(#a)\"", to),
        End::LostAt(_) => ("x", "", to),
        End::Lost => ("x", "", (x + to) / 2),
        End::OnTheWay => ("f", "", (x + to) / 2),
    };
    let bottom = match arrow.end {
        End::Arrived(at) | End::LostAt(at) => row(at),
        End::Lost | End::OnTheWay => y + ROW_HEIGHT / 2,
    };
    let _ = write!(text, "<g><title>{} s: {}</title>", seconds(arrow.at), escape(&arrow.text));
    if x == to {
        let out = x + 36;
        let _ = write!(text, "<path d=\"M{x} {y}C{out} {y} {out} {bottom} {x} {bottom}\" class=\"{class}\"{mark}/>");
    } else {
        let _ = write!(text, "<path d=\"M{x} {y}L{end} {bottom}\" class=\"{class}\"{mark}/>");
    }
    if matches!(arrow.end, End::Lost | End::LostAt(_)) {
        let (left, right, up, down) = (end - 5, end + 5, bottom - 5, bottom + 5);
        let _ = write!(text, "<path d=\"M{left} {up}L{right} {down}M{left} {down}L{right} {up}\" class=\"k\"/>");
    }
    text.push_str("</g>\n");
}

/// Writes the fields of a packet where it departs, above its arrow.
fn label(text: &mut String, arrow: &Arrow, x: usize, to: usize, y: usize) {
    let (at, anchor) = if x <= to { (x + 8, "start") } else { (x - 8, "end") };
    let fate = match arrow.end {
        End::Lost | End::LostAt(_) => "lost: ",
        _ if arrow.is_held => "held: ",
        _ => "",
    };
    let (y, fields) = (y - 3, escape(&report::fields(&arrow.text)));
    let _ = writeln!(text, "<text x=\"{at}\" y=\"{y}\" text-anchor=\"{anchor}\" class=\"l\">{fate}{fields}</text>");
}

#[cfg(test)]
mod tests {
    use super::super::machine::kernel::link::Dropped;
    use super::super::machine::kernel::packet::{Body, Packet, Protocol, Unreachable};
    use super::*;

    #[test]
    fn messages_about_either_protocol_are_told_apart() {
        let mut kernel = Kernel::new(1);
        kernel.add_host("a");
        kernel.add_host("b");
        kernel.log.keep();
        let [tcp, udp] = [Protocol::Tcp, Protocol::Udp].map(|protocol| {
            let (src, dst) = ("10.0.0.1:1".parse().unwrap(), "10.0.0.2:2".parse().unwrap());
            Packet { src, dst, body: Body::Unreachable(protocol, Unreachable::Port) }
        });
        for (at, host, packet, fate) in [
            (1, 0, &tcp, Fate::Sent),
            (2, 0, &udp, Fate::Sent),
            (3, 1, &udp, Fate::Dropped(Dropped::Down)),
            (4, 1, &tcp, Fate::Arrived),
        ] {
            kernel.log.packet(at, host, packet, fate);
        }
        let arrows: Vec<_> = Flow::new(&kernel).arrows.iter().map(|arrow| (arrow.at, arrow.end)).collect();
        assert_eq!(arrows, [(1, End::Arrived(3)), (2, End::LostAt(2))]);
    }
}
