//! How `watch` shows what it sees: lines of JSON, or a screen that is redrawn.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use qanah_proto::v1::Tunnel;
use terminal_size::{Height, terminal_size_of};

use super::status_json;
use super::watch::Told;
use crate::client::Trouble;
use crate::find::Found;
use crate::output::Style;
use crate::table;
use crate::text::{cut, escape, escape_json};

/// Leaves the lines of the shell alone: another screen, without a cursor.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
/// To the upper left corner.
const HOME: &str = "\x1b[H";
/// Clears to the end of the line, and to that of the screen.
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_REST: &str = "\x1b[J";

/// A way to show the state.
pub(crate) trait View {
    /// After a change.
    fn change(&mut self, told: &[Told]) -> io::Result<()>;

    /// Once a second.
    fn tick(&mut self, told: &[Told]) -> io::Result<()>;

    /// Whether it prints lines, between which others may stand.
    fn is_lines(&self) -> bool;
}

/// One line of JSON a change.
#[derive(Debug)]
pub(crate) struct Lines;

impl View for Lines {
    fn change(&mut self, told: &[Told]) -> io::Result<()> {
        let found: Vec<Found> = told.iter().flat_map(|told| told.tunnels.clone()).collect();
        let gone: Vec<Trouble> = told.iter().filter_map(|told| told.gone.clone()).collect();
        let line = escape_json(&status_json::render_line(&found, &gone));
        let mut stdout = io::stdout().lock();
        stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush())
    }

    /// A pipe that nobody reads is seen before the next change, which may never come.
    fn tick(&mut self, _told: &[Told]) -> io::Result<()> {
        let stdout = io::stdout();
        let mut fds = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
        let _ = poll(&mut fds, PollTimeout::ZERO);
        let closed = fds.iter().filter_map(PollFd::revents).any(|e| e.contains(PollFlags::POLLERR));
        if closed { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
    }

    fn is_lines(&self) -> bool {
        true
    }
}

/// A screen that is redrawn in place, left again when this is dropped.
#[derive(Debug)]
pub(crate) struct Screen {
    style: Style,
}

impl Screen {
    /// Takes the terminal.
    pub(crate) fn open(style: Style) -> Self {
        put(ENTER);
        Self { style }
    }

    fn draw(&self, told: &[Told]) -> io::Result<()> {
        let rows = terminal_size_of(io::stdout()).map(|(_, Height(rows))| usize::from(rows));
        let frame = frame(&blocks(told, self.style), rows.unwrap_or(24));
        let mut stdout = io::stdout().lock();
        stdout.write_all(frame.as_bytes()).and_then(|()| stdout.flush())
    }
}

impl View for Screen {
    fn change(&mut self, told: &[Told]) -> io::Result<()> {
        self.draw(told)
    }

    fn tick(&mut self, told: &[Told]) -> io::Result<()> {
        self.draw(told)
    }

    fn is_lines(&self) -> bool {
        false
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        put(LEAVE);
    }
}

/// Without a terminal there is nobody to tell of the failure.
fn put(codes: &str) {
    let mut stdout = io::stdout().lock();
    let _ = stdout.write_all(codes.as_bytes()).and_then(|()| stdout.flush());
}

/// The tables of all tunnels as they are now.
fn blocks(told: &[Told], style: Style) -> String {
    let mut blocks = Vec::new();
    for daemon in told {
        let seconds = daemon.at.elapsed().as_secs();
        for found in &daemon.tunnels {
            blocks.push(table::tunnel(&later(found.tunnel.clone(), seconds), style));
        }
        if let Some(why) = &daemon.gone {
            blocks.push(format!("{}\n", escape(&why.message)));
        }
    }
    if blocks.is_empty() { "no tunnel is up\n".to_owned() } else { blocks.join("\n") }
}

/// The same state, told that many seconds ago.
fn later(mut tunnel: Tunnel, seconds: u64) -> Tunnel {
    tunnel.uptime_seconds = tunnel.uptime_seconds.saturating_add(seconds);
    for broker in tunnel.signaling.iter_mut().flat_map(|signaling| &mut signaling.brokers) {
        broker.since_seconds = broker.since_seconds.saturating_add(seconds);
    }
    for server in &mut tunnel.servers {
        server.since_seconds = server.since_seconds.saturating_add(seconds);
    }
    for peer in &mut tunnel.peers {
        let older = peer.last_handshake_seconds.map(|age| age.saturating_add(seconds));
        peer.last_handshake_seconds = older;
        peer.next_try_seconds = peer.next_try_seconds.map(|next| next.saturating_sub(seconds));
    }
    tunnel
}

/// What is sent to the terminal: every line over the old one, as many as there is room for.
fn frame(text: &str, rows: usize) -> String {
    let count = text.lines().count();
    let room = rows.max(2) - 1;
    let shown = if count > room { room - 1 } else { count };
    let mut frame = HOME.to_owned();
    for line in text.lines().take(shown) {
        let _ = write!(frame, "{line}{CLEAR_LINE}\r\n");
    }
    if shown < count {
        let more = format!("... {} more lines; qanahctl status shows all", count - shown);
        let _ = write!(frame, "{}{CLEAR_LINE}\r\n", cut(&more, crate::text::WIDTH));
    }
    frame + CLEAR_REST
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{tunnel, unconnected};

    #[test]
    fn a_frame_never_scrolls() {
        let text = "line\n".repeat(50);
        for rows in [0, 1, 2, 10, 24, 51, 100] {
            let frame = frame(&text, rows);
            assert!(frame.matches("\r\n").count() < rows.max(2), "{rows}");
            assert!(frame.starts_with(HOME) && frame.ends_with(CLEAR_REST));
            assert_eq!(frame.contains("more lines"), rows <= 50);
        }
    }

    #[test]
    fn ages_go_on_between_changes() {
        let mut told = tunnel("peer1");
        let state = qanah_proto::v1::PeerState::Connecting;
        told.peers.push(unconnected(state, "", Some(3)));
        told.servers.push(crate::testing::server("no answer"));
        let later = later(told, 5);
        assert_eq!(later.servers[0].since_seconds, 17);
        assert_eq!(later.uptime_seconds, 195);
        assert_eq!(later.peers[0].last_handshake_seconds, Some(17));
        assert_eq!(later.peers[1].next_try_seconds, Some(0));
        assert_eq!(later.signaling.unwrap().brokers[0].since_seconds, 194);
    }
}
