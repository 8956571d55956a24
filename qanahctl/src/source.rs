//! The configuration that a command names: a file that is read here, or a tunnel of the daemon.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use qanah_core::config::{MAX_FILE_LEN, TunnelName};
use qanah_proto::exit::Exit;
use zeroize::Zeroizing;

use crate::client::Trouble;

/// What `NAME|FILE` stands for.
#[derive(Debug)]
pub(crate) enum Source {
    /// The name of a tunnel: NAME.conf in /etc/qanah, which the daemon reads.
    Name(String),
    /// A file that was read here.
    File {
        /// As it was given.
        path: String,
        /// The file's stem.
        name: TunnelName,
        /// What is in it.
        text: Zeroizing<Vec<u8>>,
    },
}

impl Source {
    /// Reads the file, if the text names one: it has a slash in it, or ends in `.conf`.
    ///
    /// # Errors
    /// When the file cannot be read, or a tunnel cannot be named after it.
    pub(crate) fn read(given: &str) -> Result<Self, Trouble> {
        if !given.contains('/') && !given.ends_with(".conf") {
            return Ok(Self::Name(given.to_owned()));
        }
        let path = Path::new(given);
        let name = TunnelName::from_path(path)
            .map_err(|error| Trouble::new(Exit::BadConfig, format!("{given}: {error}")))?;
        let text = read(path).map_err(|error| unreadable(given, &name, &error))?;
        Ok(Self::File { path: given.to_owned(), name, text })
    }
}

/// Reads one byte more than a configuration may have, so that the parser sees that it is too long.
fn read(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    // Room from the start: a vector that grows leaves copies of keys behind.
    let mut text = Zeroizing::new(Vec::with_capacity(MAX_FILE_LEN + 1));
    File::open(path)?.take(MAX_FILE_LEN as u64 + 1).read_to_end(&mut text)?;
    Ok(text)
}

fn unreadable(given: &str, name: &TunnelName, error: &io::Error) -> Trouble {
    let message = format!("cannot read {given}: {error}");
    match error.kind() {
        io::ErrorKind::PermissionDenied => Trouble::new(Exit::Denied, message).hint(format!(
            "if it is in /etc/qanah, the daemon can read it: give its name, {name}\n\
             else do it as root, with sudo"
        )),
        io::ErrorKind::NotFound => Trouble::new(Exit::BadConfig, message)
            .hint(format!("{name} alone means the file {name}.conf in /etc/qanah")),
        _ => Trouble::new(Exit::BadConfig, message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_files_are_told_apart() {
        for name in ["peer1", "a.b", "..", "peer1.conf.bak"] {
            assert!(matches!(Source::read(name), Ok(Source::Name(n)) if n == name));
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("peer1.conf");
        std::fs::write(&path, "text").unwrap();
        let Ok(Source::File { name, text, .. }) = Source::read(path.to_str().unwrap()) else {
            panic!("not read");
        };
        assert_eq!((name.as_str(), text.as_slice()), ("peer1", &b"text"[..]));
    }

    #[test]
    fn what_cannot_be_read_is_said_with_advice() {
        let missing = Source::read("./peer1.conf").unwrap_err();
        assert_eq!(missing.exit, Exit::BadConfig);
        assert!(missing.message.starts_with("cannot read ./peer1.conf: "));
        assert!(missing.hint.unwrap().contains("/etc/qanah"));
        for bad in ["/etc/hostname", "a-name-that-is-too-long.conf", "/", "../"] {
            assert_eq!(Source::read(bad).unwrap_err().exit, Exit::BadConfig, "{bad}");
        }
    }
}
