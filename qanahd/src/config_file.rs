//! A configuration with where it comes from, which decides what it may ask for.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use qanah_core::config::{
    Config, ConfigError, Level, MAX_FILE_LEN, Parsed, Refusal, TunnelName, TunnelNameError,
};
use tracing::{info, warn};
use zeroize::Zeroizing;

use crate::platform::config_dir::{ConfigDir, ConfigDirError};

/// Permission bits of others than the owner.
const OTHERS: u32 = 0o077;
/// Permission to write of others than the owner.
const OTHERS_WRITE: u32 = 0o022;

/// Why a file is no configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigFileError {
    /// No file was given.
    #[error("give the configuration of the tunnel: --config FILE")]
    Missing,
    /// It cannot be read.
    #[error("cannot read {file}: {source}")]
    Read {
        /// Which file.
        file: String,
        /// Why.
        source: std::io::Error,
    },
    /// It cannot be had by its name.
    #[error(transparent)]
    Directory(#[from] ConfigDirError),
    /// A tunnel cannot be named after it.
    #[error("{file}: {error}")]
    Name {
        /// Which file.
        file: String,
        /// What is wrong with the name.
        error: TunnelNameError,
    },
    /// Its text has a mistake.
    #[error(transparent)]
    Text(#[from] ConfigError),
    /// It asks for something that has no effect yet, or that it may not ask for.
    #[error("{0}")]
    Refused(String),
    /// It was given as text, and there is nothing to read again.
    #[error(
        "the tunnel was brought up from a text, so there is no file to read again; take it down \
         and bring it up again"
    )]
    NoFile,
}

impl ConfigFileError {
    /// The error for somebody who may not read the file: where, but not what it says there.
    pub(crate) fn without_quotes(&self) -> String {
        match self {
            Self::Text(error) => format!(
                "{}: there is a mistake at {}; root can see which (qanahctl check, or the log)",
                error.file,
                error.place()
            ),
            // These never quote the text.
            other => other.to_string(),
        }
    }

    /// Whether it is about the file and not about its text.
    pub(crate) const fn is_about_the_file(&self) -> bool {
        matches!(self, Self::Read { .. } | Self::Directory(_) | Self::NoFile)
    }
}

/// Where a configuration comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A path that root gave on the command line.
    Path(PathBuf),
    /// The directory of configurations, by the tunnel's name.
    Name(TunnelName),
    /// A text that root gave.
    Text,
}

/// A configuration, read and parsed.
pub(crate) struct ConfigFile {
    pub(crate) name: TunnelName,
    pub(crate) parsed: Parsed,
    pub(crate) origin: Origin,
    /// What to call it in messages.
    file: String,
    /// Others than its owner can read it.
    exposed: bool,
    /// Nobody but root can have written it.
    trusted: bool,
}

impl ConfigFile {
    /// What to call it in messages.
    pub(crate) fn label(&self) -> &str {
        &self.file
    }

    /// Reads and parses a file that root names. The tunnel is named after it.
    ///
    /// # Errors
    /// See [`ConfigFileError`]; the message names file and line.
    pub(crate) fn read(path: Option<&Path>) -> Result<Self, ConfigFileError> {
        let path = path.ok_or(ConfigFileError::Missing)?;
        let file = path.display().to_string();
        let name = TunnelName::from_path(path)
            .map_err(|error| ConfigFileError::Name { file: file.clone(), error })?;
        let Contents { text, exposed, trusted } = read_capped(path)
            .map_err(|source| ConfigFileError::Read { file: file.clone(), source })?;
        let parsed = Config::parse(&file, &text)?;
        Ok(Self { name, parsed, origin: Origin::Path(path.to_owned()), file, exposed, trusted })
    }

    /// Reads and parses the file of a tunnel in the directory of configurations.
    ///
    /// # Errors
    /// See [`ConfigFileError`] and [`ConfigDirError`].
    pub(crate) fn by_name(
        directory: &ConfigDir,
        name: TunnelName,
    ) -> Result<Self, ConfigFileError> {
        let file = directory.file(&name).display().to_string();
        let text = directory.read(&name)?;
        let parsed = Config::parse(&file, &text)?;
        let origin = Origin::Name(name.clone());
        Ok(Self { name, parsed, origin, file, exposed: false, trusted: true })
    }

    /// Parses a text that root gave.
    ///
    /// # Errors
    /// [`ConfigFileError::Text`].
    pub(crate) fn from_text(name: TunnelName, text: &[u8]) -> Result<Self, ConfigFileError> {
        let file = format!("{name}.conf");
        let parsed = Config::parse(&file, text)?;
        Ok(Self { name, parsed, origin: Origin::Text, file, exposed: false, trusted: false })
    }

    /// Reads again what was read before, from where that came.
    ///
    /// # Errors
    /// As before, and [`ConfigFileError::NoFile`].
    pub(crate) fn again(directory: &ConfigDir, origin: &Origin) -> Result<Self, ConfigFileError> {
        match origin {
            Origin::Path(path) => Self::read(Some(path)),
            Origin::Name(name) => Self::by_name(directory, name.clone()),
            Origin::Text => Err(ConfigFileError::NoFile),
        }
    }

    /// Logs what its author should know.
    pub(crate) fn warn(&self) {
        if let Some(exposed) = self.exposure() {
            warn!("{exposed}");
        }
        for warning in &self.parsed.warnings {
            match warning.level {
                Level::Warning => warn!("{}", warning.in_file(&self.file)),
                Level::Notice => info!("{}", warning.in_file(&self.file)),
            }
        }
    }

    /// What its author should know, a line each.
    pub(crate) fn notes(&self) -> Vec<String> {
        let warnings = self.parsed.warnings.iter().map(|warning| warning.in_file(&self.file));
        self.exposure().into_iter().chain(warnings).collect()
    }

    fn exposure(&self) -> Option<String> {
        let file = &self.file;
        self.exposed.then(|| {
            format!("{file} can be read by others and holds a private key: chmod 600 {file}")
        })
    }

    /// What keeps a tunnel with it from starting, a line each.
    pub(crate) fn refusals(&self) -> Vec<String> {
        let mut refusals = self.parsed.config.refusals();
        refusals.extend(self.refused_hooks());
        refusals.sort_by_key(|refusal| refusal.line);
        refusals.iter().map(|refusal| refusal.in_file(&self.file)).collect()
    }

    /// Whether commands are run.
    pub(crate) fn has_hooks(&self) -> bool {
        !self.parsed.config.interface.hooks.is_empty()
    }

    /// Hooks are commands that run as root. So only root may have written them: a text that root
    /// merely passes on, perhaps from elsewhere, does not say that.
    fn refused_hooks(&self) -> Vec<Refusal> {
        let config = &self.parsed.config;
        match self.origin {
            _ if self.trusted => Vec::new(),
            Origin::Text => config.hooks_refused(
                "hooks are not run from a configuration that is given as text",
                "put the file into /etc/qanah (root's, mode 600) and bring it up by its name, or \
                 remove the lines with this key",
            ),
            Origin::Path(_) | Origin::Name(_) => config.hooks_refused(
                "hooks are run only from a file that belongs to root and that nobody else can \
                 write to",
                "chown root and chmod 600 the file, or remove the lines with this key",
            ),
        }
    }

    /// Refuses what would silently have no effect, or must not have one.
    ///
    /// # Errors
    /// [`ConfigFileError::Refused`], with every line that it concerns.
    pub(crate) fn refuse(&self) -> Result<(), ConfigFileError> {
        let refusals = self.refusals();
        if refusals.is_empty() {
            Ok(())
        } else {
            Err(ConfigFileError::Refused(refusals.join("\n")))
        }
    }
}

/// Warns of files with options of a service, which may hold passwords, that others can read or write. The
/// service manager has read them by then, and asks nobody whose they are.
pub(crate) fn warn_of_exposed_environment(directory: &ConfigDir, tunnel: Option<&TunnelName>) {
    for name in ["qanahd"].into_iter().chain(tunnel.map(TunnelName::as_str)) {
        let file = directory.environment(name);
        // Without a file there is nothing to say.
        if let Some(problem) = std::fs::metadata(&file).ok().and_then(|found| exposed(&found)) {
            let file = file.display();
            warn!("{file} {problem}: chown root {file}; chmod 600 {file}");
        }
    }
}

fn exposed(found: &std::fs::Metadata) -> Option<&'static str> {
    if found.uid() != 0 || found.mode() & OTHERS_WRITE != 0 {
        Some("can be written by others, who by that can do anything on this machine")
    } else {
        (found.mode() & OTHERS != 0).then_some("can be read by others, and may hold passwords")
    }
}

/// What was read of a file, and who could have read or written it.
struct Contents {
    text: Zeroizing<Vec<u8>>,
    exposed: bool,
    trusted: bool,
}

/// Reads one byte more than a configuration may have, so that the parser sees that it is too long.
fn read_capped(path: &Path) -> std::io::Result<Contents> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(std::io::ErrorKind::IsADirectory.into());
    }
    let (mode, owner) = (metadata.mode(), metadata.uid());
    // Room from the start: a vector that grows leaves copies of keys behind.
    let mut text = Zeroizing::new(Vec::with_capacity(MAX_FILE_LEN + 1));
    file.take(MAX_FILE_LEN as u64 + 1).read_to_end(&mut text)?;
    let trusted = metadata.is_file() && owner == 0 && mode & OTHERS_WRITE == 0;
    Ok(Contents { text, exposed: mode & OTHERS != 0, trusted })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown};

    use super::*;

    #[test]
    fn a_missing_file_and_a_bad_name_are_told() {
        let missing = ConfigFile::read(Some(Path::new("/nonexistent/wg0.conf"))).err().unwrap();
        assert!(missing.to_string().starts_with("cannot read /nonexistent/wg0.conf: "));
        let named = ConfigFile::read(Some(Path::new("/etc/a-name-that-is-too-long.conf")));
        assert!(matches!(named, Err(ConfigFileError::Name { .. })));
        assert!(ConfigFile::read(None).is_err());
    }

    #[test]
    fn others_that_can_read_it_earn_a_warning() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("peer1.conf");
        std::fs::write(&path, include_str!("../../examples/peer1.conf")).unwrap();
        for (mode, exposed) in [(0o600, false), (0o640, true), (0o604, true)] {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            let file = ConfigFile::read(Some(&path)).unwrap();
            assert_eq!((file.exposed, file.name.as_str()), (exposed, "peer1"));
        }
    }

    const HOOKED: &str = "[Interface]\nPrivateKey = YAnz5TF+lXXJte14tji3zlMNftft3siVGnSSLyG6NWE=\n\
                          Address = 10.0.0.1/24\nPostUp = echo secret\n";

    /// `Ok` is the empty list of refusals.
    fn hooks_of(path: &Path, mode: u32, owner: u32) -> Vec<String> {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        chown(path, Some(owner), None).unwrap();
        let file = ConfigFile::read(Some(path)).unwrap();
        assert_eq!(file.refuse().is_ok(), file.refusals().is_empty());
        file.refusals()
    }

    #[test]
    fn hooks_are_run_only_from_what_root_alone_can_have_written() {
        crate::platform::testing::require_root();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.conf");
        std::fs::write(&path, HOOKED).unwrap();
        for mode in [0o600, 0o644, 0o400] {
            assert_eq!(hooks_of(&path, mode, 0), [""; 0], "{mode:o}");
        }
        for (mode, owner) in [(0o620, 0), (0o602, 0), (0o666, 0), (0o600, 65_534)] {
            let refused = hooks_of(&path, mode, owner);
            assert!(refused[0].contains(":4: PostUp: hooks are run only from"), "{refused:?}");
            assert!(!refused[0].contains("secret"));
        }
        hooks_of(&path, 0o600, 0);
        let named = ConfigFile::by_name(&ConfigDir::at(dir.path()), "t".parse().unwrap()).unwrap();
        assert_eq!(named.refusals(), [""; 0]);
        let text = ConfigFile::from_text("t".parse().unwrap(), HOOKED.as_bytes()).unwrap();
        assert!(text.refusals()[0].starts_with("t.conf:4: PostUp: hooks are not run from"));
        assert!(text.refuse().is_err());
    }

    #[test]
    fn only_those_who_may_read_a_file_see_what_it_says() {
        let text = "[Interface]\nPrivateKey = oops-my-password\n";
        let error = ConfigFile::from_text("t".parse().unwrap(), text.as_bytes()).err().unwrap();
        let place = error.without_quotes();
        assert!(place.starts_with("t.conf: there is a mistake at line 2: PrivateKey;"), "{place}");
        assert!(!place.contains("oops"));
        let unknown = "[Interface]\nPassw0rd = hunter2\n";
        let error = ConfigFile::from_text("t".parse().unwrap(), unknown.as_bytes()).err().unwrap();
        assert!(error.to_string().contains("Passw0rd"), "{error}");
        let place = error.without_quotes();
        assert!(!place.contains("Passw0rd") && !place.contains("hunter2"), "{place}");
    }

    #[test]
    fn options_that_others_can_read_or_write_are_noticed() {
        crate::platform::testing::require_root();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("qanahd.env");
        std::fs::write(&path, "QANAH_TURN_CREDENTIAL=secret\n").unwrap();
        let verdict = |mode, owner| {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            chown(&path, Some(owner), None).unwrap();
            exposed(&std::fs::metadata(&path).unwrap()).unwrap_or_default()
        };
        assert_eq!(verdict(0o600, 0), "");
        assert!(verdict(0o640, 0).contains("read by others"));
        assert!(verdict(0o604, 0).contains("read by others"));
        assert!(verdict(0o620, 0).contains("written by others"));
        assert!(verdict(0o600, 65_534).contains("written by others"));
        // Says it, and does not mind that the other file is not there.
        warn_of_exposed_environment(&ConfigDir::at(dir.path()), Some(&"t".parse().unwrap()));
    }

    #[test]
    fn a_text_cannot_be_read_again() {
        let dir = ConfigDir::at("/nonexistent");
        let error = ConfigFile::again(&dir, &Origin::Text).err().unwrap();
        assert!(matches!(error, ConfigFileError::NoFile) && error.is_about_the_file());
    }
}
