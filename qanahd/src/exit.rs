//! How the daemon ends: an exit code with the error that belongs to it.

use std::fmt;

pub(crate) use qanah_proto::exit::Exit;

/// An error that knows the exit code it ends the process with.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The code.
    pub(crate) exit: Exit,
    /// What failed, and why.
    pub(crate) error: anyhow::Error,
}

impl fmt::Display for Failure {
    /// The whole chain of causes in one line, each once: some errors tell their cause themselves.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut told = String::new();
        for cause in self.error.chain().map(ToString::to_string) {
            if told.is_empty() {
                f.write_str(&cause)?;
            } else if told.ends_with(&cause) {
                continue;
            } else {
                write!(f, ": {cause}")?;
            }
            told = cause;
        }
        Ok(())
    }
}

/// An error without a code of its own is a plain failure.
impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { exit: Exit::Failed, error: error.into() }
    }
}

/// Gives the error of a result its exit code.
pub(crate) trait ExitWith<T> {
    /// The error, if there is one, ends the process with `exit`.
    ///
    /// # Errors
    ///
    /// The error of the result.
    fn exit_with(self, exit: Exit) -> Result<T, Failure>;
}

impl<T, E: Into<anyhow::Error>> ExitWith<T> for Result<T, E> {
    fn exit_with(self, exit: Exit) -> Result<T, Failure> {
        self.map_err(|error| Failure { exit, error: error.into() })
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    fn missing() -> std::io::Result<()> {
        Err(std::io::ErrorKind::NotFound.into())
    }

    fn start() -> Result<(), Failure> {
        missing().context("cannot read peer1.conf").exit_with(Exit::BadConfig)
    }

    fn other() -> Result<(), Failure> {
        Ok(missing()?)
    }

    #[test]
    fn errors_carry_their_code_and_their_causes() {
        let failure = start().unwrap_err();
        assert_eq!(failure.exit, Exit::BadConfig);
        assert_eq!(failure.to_string(), "cannot read peer1.conf: entity not found");
        assert_eq!(other().unwrap_err().exit, Exit::Failed);
        let file = crate::config_file::ConfigFileError::Read {
            file: "peer1.conf".to_owned(),
            source: std::io::ErrorKind::NotFound.into(),
        };
        let told = Failure::from(file).to_string();
        assert_eq!(told, "cannot read peer1.conf: entity not found", "its cause once");
    }
}
