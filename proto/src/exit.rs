//! Exit codes, the same for every command of Qanah.

use std::process::ExitCode;

/// How a command ended. Of several results the highest counts, see [`Exit::worst`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
#[repr(u8)]
pub enum Exit {
    /// All is well.
    #[default]
    Well = 0,
    /// Something failed that none of the others names.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The tunnel is up, but not all of its peers are connected.
    NotAllConnected = 3,
    /// The tunnel is down, unknown, or there is no daemon.
    Down = 4,
    /// The caller may not do this.
    Denied = 5,
    /// The configuration cannot be used.
    BadConfig = 6,
}

impl Exit {
    /// The number that the process ends with.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The higher of two results.
    #[must_use]
    pub fn worst(self, other: Self) -> Self {
        self.max(other)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

impl From<Exit> for i32 {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_numbers_and_the_highest_wins() {
        let all = [
            Exit::Well,
            Exit::Failed,
            Exit::Usage,
            Exit::NotAllConnected,
            Exit::Down,
            Exit::Denied,
            Exit::BadConfig,
        ];
        assert_eq!(all.map(Exit::code), [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(Exit::Denied.worst(Exit::NotAllConnected), Exit::Denied);
        assert_eq!(all.into_iter().fold(Exit::default(), Exit::worst), Exit::BadConfig);
    }
}
