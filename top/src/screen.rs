//! The live view: state, keys, and drawing.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use crossterm::style::{Attribute, SetAttribute};
use crossterm::terminal::{
    self, Clear, ClearType, DisableLineWrap, EnableLineWrap, EnterAlternateScreen, LeaveAlternateScreen,
};
use crossterm::{cursor, execute, queue};

use crate::rows::{Key, Order, Row, Table, details, follow, rows, titles};
use crate::snapshot::Snapshot;

/// The terminal in raw mode, on its alternate screen. Lines do not wrap, because a line of wide
/// characters takes more columns than it has characters. Dropping the value restores the terminal.
struct Terminal;

impl Terminal {
    fn enter() -> io::Result<Terminal> {
        terminal::enable_raw_mode().map_err(|error| {
            let text = format!("the live view needs a terminal ({error}); --once prints one snapshot");
            io::Error::new(error.kind(), text)
        })?;
        let terminal = Terminal;
        execute!(io::stdout(), EnterAlternateScreen, DisableLineWrap, cursor::Hide)?;
        Ok(terminal)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = execute!(io::stdout(), cursor::Show, EnableLineWrap, LeaveAlternateScreen);
        let _ = terminal::disable_raw_mode();
    }
}

/// The state of the view.
pub(crate) struct View {
    path: PathBuf,
    /// The last snapshot.
    now: Snapshot,
    /// The snapshot before the last, if there is one.
    before: Option<Snapshot>,
    /// The error of the last attempt to take a snapshot, if it failed.
    error: Option<io::Error>,
    table: Table,
    order: Order,
    filter: String,
    /// Whether the user is typing a filter.
    types_filter: bool,
    paused: bool,
    /// The index of the selected row.
    selected: usize,
    /// The subjects whose details are open, in the order in which they were opened. The details of
    /// the last one are shown.
    open: Vec<Key>,
    rows: Vec<Row>,
}

impl View {
    pub(crate) fn new(path: PathBuf, order: Order, filter: String) -> View {
        View {
            path,
            now: Snapshot::default(),
            before: None,
            error: None,
            table: Table::Tasks,
            order,
            filter,
            types_filter: false,
            paused: false,
            selected: 0,
            open: Vec::new(),
            rows: Vec::new(),
        }
    }

    /// Shows the view until the user quits.
    pub(crate) fn run(&mut self, interval: Duration) -> io::Result<()> {
        let _terminal = Terminal::enter()?;
        loop {
            let begin = Instant::now();
            if !self.paused {
                self.refresh();
            }
            // Snapshots of a program with many sockets take longer, so they are taken less often.
            // At most a quarter of the time is spent on them.
            let next = begin + interval.max(begin.elapsed() * 4);
            loop {
                self.draw()?;
                let left = next.saturating_duration_since(Instant::now());
                if left.is_zero() || !event::poll(left)? {
                    break;
                }
                if let Event::Key(key) = event::read()?
                    && key.kind != KeyEventKind::Release
                {
                    let is_interrupt = key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c');
                    if is_interrupt || !self.press(key.code) {
                        return Ok(());
                    }
                }
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn refresh_for_tests(&mut self) {
        self.refresh();
    }

    fn refresh(&mut self) {
        match Snapshot::take(&self.path) {
            Ok(snapshot) => {
                let before = std::mem::replace(&mut self.now, snapshot);
                self.before = (before.taken > 0.0).then_some(before);
                self.error = None;
            }
            Err(error) => self.error = Some(error),
        }
        self.arrange();
    }

    fn arrange(&mut self) {
        self.rows = rows(self.table, &self.now, self.before.as_ref(), self.order, &self.filter);
        self.selected = self.selected.min(self.rows.len().saturating_sub(1));
    }

    fn show(&mut self, table: Table) {
        (self.table, self.selected) = (table, 0);
        self.open.clear();
        self.arrange();
    }

    /// Handles a key press. Returns false to quit.
    pub(crate) fn press(&mut self, key: KeyCode) -> bool {
        if self.types_filter {
            match key {
                KeyCode::Enter | KeyCode::Esc => self.types_filter = false,
                KeyCode::Backspace => drop(self.filter.pop()),
                KeyCode::Char(letter) => self.filter.push(letter),
                _ => {}
            }
            self.arrange();
            return true;
        }
        match key {
            KeyCode::Char('q') => return false,
            KeyCode::Char('t') => self.show(Table::Tasks),
            KeyCode::Char('s') => self.show(Table::Sockets),
            KeyCode::Char('w') => self.show(Table::Workers),
            KeyCode::Char('h') => self.show(Table::Times),
            KeyCode::Char('p') => self.paused = !self.paused,
            KeyCode::Enter => {
                let next = match self.open.last() {
                    Some(&key) => follow(&self.now, key),
                    None => self.rows.get(self.selected).map(|row| row.key),
                };
                self.open.extend(next);
            }
            KeyCode::Esc => drop(self.open.pop()),
            // The details hide the table, to which the other keys apply.
            _ if !self.open.is_empty() => {}
            KeyCode::Char('o') => {
                self.order = self.order.next();
                self.arrange();
            }
            KeyCode::Char('/') => {
                self.types_filter = true;
                self.filter.clear();
                self.arrange();
            }
            KeyCode::Char('j') | KeyCode::Down => self.move_by(1),
            KeyCode::Char('k') | KeyCode::Up => self.move_by(-1),
            KeyCode::PageDown => self.move_by(20),
            KeyCode::PageUp => self.move_by(-20),
            _ => {}
        }
        true
    }

    fn move_by(&mut self, rows: isize) {
        self.selected = self.selected.saturating_add_signed(rows).min(self.rows.len().saturating_sub(1));
    }

    fn draw(&self) -> io::Result<()> {
        let (width, height) = terminal::size()?;
        let mut out = io::stdout().lock();
        queue!(out, cursor::MoveTo(0, 0))?;
        let lines = self.lines(usize::from(width), usize::from(height));
        for (at, (line, is_selected)) in lines.iter().enumerate() {
            // After a line of the full width, the cursor is on its last character, which a later
            // clear would erase.
            let clear = if at + 1 == lines.len() { ClearType::FromCursorDown } else { ClearType::CurrentLine };
            queue!(out, cursor::MoveTo(0, at as u16), Clear(clear))?;
            if *is_selected {
                queue!(out, SetAttribute(Attribute::Reverse))?;
            }
            out.write_all(line.as_bytes())?;
            queue!(out, SetAttribute(Attribute::Reset))?;
        }
        out.flush()
    }

    /// Returns the lines of the screen. The boolean is true for the line of the selected row.
    pub(crate) fn lines(&self, width: usize, height: usize) -> Vec<(String, bool)> {
        let mut lines = vec![(fit(&self.summary(), width), false)];
        if let Some(&key) = self.open.last() {
            lines.push((String::new(), false));
            lines.extend(details(&self.now, key).iter().map(|line| (fit(line, width), false)));
        } else {
            let titles = titles(self.table);
            let names: Vec<String> = titles.iter().map(|(name, _)| (*name).to_owned()).collect();
            lines.push((fit(&row(&names, titles), width), false));
            let room = height.saturating_sub(3).max(1);
            let first = self.selected.saturating_sub(room - 1);
            for (at, shown) in self.rows.iter().enumerate().skip(first).take(room) {
                lines.push((fit(&row(&shown.cells, titles), width), at == self.selected));
            }
        }
        lines.truncate(height.saturating_sub(1));
        lines.push((fit(&self.footer(), width), false));
        lines
    }

    fn summary(&self) -> String {
        let now = &self.now;
        let busy = now.workers.iter().filter(|worker| worker.running.is_some()).count();
        let stuck = now.workers.iter().filter(|worker| worker.stuck).count();
        let more = match now.more_tasks {
            0 => String::new(),
            more => format!(" of {}", more.saturating_add(now.tasks.len() as u64)),
        };
        format!(
            "{} tasks{more}, {} sockets, {busy} of {} workers busy, {stuck} blocked{}",
            now.tasks.len(),
            now.sockets.len(),
            now.workers.len(),
            if self.paused { "; paused" } else { "" }
        )
    }

    fn footer(&self) -> String {
        if let Some(error) = &self.error {
            return format!("{}: {error}", self.path.display());
        }
        if self.types_filter {
            return format!("filter: {}_", self.filter);
        }
        let filter = if self.filter.is_empty() { String::new() } else { format!(" filter: {}", self.filter) };
        format!(
            "t tasks s sockets w workers h times Enter open / filter o:{} p pause q quit{filter}",
            self.order.name()
        )
    }
}

fn row(cells: &[String], titles: &[(&str, usize)]) -> String {
    let cells = cells.iter().zip(titles).map(|(cell, &(_, width))| match width {
        0 => cell.clone(),
        width => format!("{:width$}", fit(cell, width)),
    });
    cells.collect::<Vec<_>>().join(" ")
}

/// Returns the first `width` characters of `text`, with control characters replaced by question
/// marks.
fn fit(text: &str, width: usize) -> String {
    text.chars().take(width).map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}
