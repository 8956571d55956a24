//! Option values from the credentials that systemd passes to a service (`LoadCredential=`).
//!
//! A credential is named after its option: `turn-credential` for `--turn-credential`. It counts less
//! than the command line and the environment. Only options that the environment can set are so given,
//! and no flags, which are no secrets.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use clap::builder::{OsStr, Resettable};
use clap::{ArgAction, Command};

/// The variable that names the directory of credentials (systemd.exec(5)).
pub(crate) const VARIABLE: &str = "CREDENTIALS_DIRECTORY";

/// Longest value, in bytes: no server's name and no password comes near it.
const MAX_LEN: u64 = 8192;

/// The command with the values of credentials as its defaults. A credential that cannot be read, or is
/// no text, is as good as none: whoever needs it says what is missing.
pub(crate) fn stand_in(command: Command, directory: Option<OsString>) -> Command {
    let Some(directory) = directory.filter(|directory| !directory.is_empty()) else {
        return command;
    };
    command.mut_args(|arg| {
        let takes_value = matches!(arg.get_action(), ArgAction::Set | ArgAction::Append);
        let name = arg.get_long().filter(|_| takes_value && arg.get_env().is_some());
        match name.map(|name| read(&Path::new(&directory).join(name))) {
            Some(Ok(Some(value))) => {
                let value = Resettable::Value(OsStr::from(value));
                arg.default_value(value).hide_default_value(true)
            }
            _ => arg,
        }
    })
}

/// The first line: a file that was made with an editor or `echo` ends in a newline.
fn read(file: &Path) -> io::Result<Option<String>> {
    let mut text = String::new();
    File::open(file)?.take(MAX_LEN).read_to_string(&mut text)?;
    Ok(text.lines().next().filter(|line| !line.is_empty()).map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::{Args as _, FromArgMatches};

    use super::*;
    use crate::args::ServerArgs;

    fn parse(directory: &Path, line: &[&str]) -> ServerArgs {
        let command = ServerArgs::augment_args(Command::new("qanahd"));
        let command = stand_in(command, Some(directory.into()));
        let matches = command.get_matches_from(["qanahd"].iter().chain(line));
        ServerArgs::from_arg_matches(&matches).unwrap()
    }

    #[test]
    fn a_credential_stands_in_for_its_option() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &[u8]| fs::write(dir.path().join(name), text).unwrap();
        write("turn-credential", b"pass word,x\nmore\n");
        write("turn-username", b"");
        write("stun", b"\xff\xfe");
        write("lazy", b"true\n");
        write("turn_url", b"turn:nobody:1");
        let args = parse(dir.path(), &[]);
        assert_eq!(args.turn_credential.as_deref(), Some("pass word,x"));
        assert_eq!((args.turn_username, args.stun.len(), args.lazy), (None, 0, false));
        assert_eq!(args.turn_url.len(), 0);
        let args = parse(dir.path(), &["--turn-credential", "mine"]);
        assert_eq!(args.turn_credential.as_deref(), Some("mine"));
        assert_eq!(parse(Path::new("/nonexistent"), &[]), ServerArgs::default());
    }

    #[test]
    fn a_secret_is_not_in_the_help() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("turn-credential"), "hunter2").unwrap();
        let command = ServerArgs::augment_args(Command::new("qanahd"));
        let help = stand_in(command, Some(dir.path().into())).render_long_help().to_string();
        assert!(help.contains("--turn-credential") && !help.contains("hunter2"));
    }
}
