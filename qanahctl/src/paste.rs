//! Reading a text that somebody pastes into the terminal, or that comes through a pipe.

use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Longest text that is read, in bytes: the daemon takes less than half of it, so that it is the one
/// who says so when a text is only a little too long.
const LIMIT: usize = 128 * 1024;

/// What is pasted comes at once. After a pause of this length, in milliseconds, a person types.
const PAUSE: u16 = 150;

/// How the texts that are carried by hand begin. A full stop follows this and a version, and another
/// one ends the text.
const MARKS: [&str; 2] = ["qanah-offer-", "qanah-answer-"];

/// Reads a pasted text: to its end, to an empty line that ends the paste, or to the end of the
/// input. Empty when nothing was pasted.
///
/// What follows the end in the same paste, such as the signature of a mail, is dropped: else
/// the shell would run it as a command later.
///
/// # Errors
/// When the input cannot be read, or is longer than any text.
pub(crate) fn pasted<R: Read + AsFd>(input: &mut BufReader<R>) -> io::Result<String> {
    let mut text = String::new();
    let mut plain = String::new();
    loop {
        let mut line = Vec::new();
        let room = (LIMIT + 1).saturating_sub(text.len()) as u64;
        let length = input.by_ref().take(room).read_until(b'\n', &mut line)?;
        let line = String::from_utf8_lossy(&line);
        text.push_str(&line);
        if text.len() > LIMIT {
            drain(input)?;
            return Err(too_long());
        }
        if length == 0 {
            break;
        }
        plain.extend(line.chars().filter(|c| !is_filler(*c)));
        if (line.contains('.') && is_complete(&plain)) || (is_blank(&line) && !more_waits(input)?) {
            drain(input)?;
            break;
        }
    }
    Ok(if text.lines().all(is_blank) { String::new() } else { text })
}

/// Reads a text from a pipe or a file, to its end.
///
/// # Errors
/// When it cannot be read, or is longer than any text.
pub(crate) fn whole(input: impl Read) -> io::Result<String> {
    let mut raw = Vec::new();
    input.take(LIMIT as u64 + 1).read_to_end(&mut raw)?;
    if raw.len() > LIMIT {
        return Err(too_long());
    }
    Ok(String::from_utf8_lossy(&raw).into_owned())
}

fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it is longer than any offer or answer")
}

/// What mail and terminals put between the characters of a text: white space, quote marks and soft
/// line breaks.
fn is_filler(c: char) -> bool {
    c.is_whitespace() || matches!(c, '>' | '=')
}

fn is_blank(line: &str) -> bool {
    line.chars().all(is_filler)
}

/// Whether a text, without fillers, has its last full stop.
fn is_complete(plain: &str) -> bool {
    let ends = |text: &str| text.matches('.').count() >= 2;
    MARKS.iter().any(|mark| plain.rsplit_once(mark).is_some_and(|(_, rest)| ends(rest)))
}

/// Whether more of the paste is there, or comes before a person could type it.
fn more_waits<R: Read + AsFd>(input: &BufReader<R>) -> io::Result<bool> {
    if !input.buffer().is_empty() {
        return Ok(true);
    }
    let mut fds = [PollFd::new(input.get_ref().as_fd(), PollFlags::POLLIN)];
    match poll(&mut fds, PollTimeout::from(PAUSE)) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::EINTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Drops the rest of the paste.
fn drain<R: Read + AsFd>(input: &mut BufReader<R>) -> io::Result<()> {
    let mut dropped = 0;
    while dropped < LIMIT && more_waits(input)? {
        let length = input.fill_buf()?.len();
        if length == 0 {
            break;
        }
        input.consume(length);
        dropped += length;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{PipeReader, Write, pipe};

    use super::*;

    const TEXT: &str = "qanah-offer-1.AAAA\nBB-_BB.\n";

    /// A pipe that stays open, as a terminal does: reading must end by itself.
    fn open(text: &str) -> (BufReader<PipeReader>, io::PipeWriter) {
        let (reader, mut writer) = pipe().unwrap();
        writer.write_all(text.as_bytes()).unwrap();
        (BufReader::new(reader), writer)
    }

    #[test]
    fn reading_ends_at_the_end_and_drops_what_follows() {
        let (mut input, mut writer) =
            open(&format!("\n--- from here ---\n{TEXT}-- \nbob; rm -rf x\n"));
        assert_eq!(pasted(&mut input).unwrap(), format!("\n--- from here ---\n{TEXT}"));
        writer.write_all(TEXT.as_bytes()).unwrap();
        assert_eq!(pasted(&mut input).unwrap(), TEXT);
    }

    #[test]
    fn quotes_spaces_and_broken_lines_hide_no_end() {
        let quoted: String = TEXT.lines().map(|line| format!("> > {line}\r\n")).collect();
        let spaced = format!("Hello Ann. Here it is.\n\n{}", TEXT.replace('\n', "\n\n  "));
        let one_line = format!("{}\n", TEXT.replace('\n', " "));
        let broken = TEXT.replace("qanah-offer", "qan=\n> ah-of\nfer").replace("BB.", "BB\n.");
        for text in [quoted, spaced, one_line, broken] {
            let (mut input, _writer) = open(&format!("{text}\n"));
            let read = pasted(&mut input).unwrap();
            assert!(read.trim_end().ends_with('.') && text.starts_with(read.trim_end()), "{read}");
        }
    }

    #[test]
    fn an_empty_line_ends_what_has_no_end() {
        let (mut input, _writer) = open("qanah-offer-1.AAAA\n\n");
        assert_eq!(pasted(&mut input).unwrap(), "qanah-offer-1.AAAA\n\n");
        let (mut input, _writer) = open("\n");
        assert_eq!(pasted(&mut input).unwrap(), "");
        let (mut input, writer) = open("AAAA");
        drop(writer);
        assert_eq!(pasted(&mut input).unwrap(), "AAAA");
        assert_eq!(pasted(&mut input).unwrap(), "");
    }

    #[test]
    fn what_is_longer_than_any_text_is_refused() {
        assert!(whole(io::repeat(b'x')).is_err());
        assert_eq!(whole(&b"x\n\xff"[..]).unwrap(), "x\n\u{fffd}");
        let (mut input, mut writer) = open("");
        let flood = std::thread::spawn(move || {
            let line = [&[b'x'; 1023][..], b"\n"].concat();
            (0..500).try_for_each(|_| writer.write_all(&line))
        });
        assert!(pasted(&mut input).is_err());
        drop(input);
        let _ = flood.join().unwrap();
    }
}
