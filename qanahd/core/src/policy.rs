//! Who may call what on the control socket: one table, default deny.
//!
//! Whoever can open the socket is root or a member of the group `qanah`: the modes of the socket
//! and its directory see to that. `SO_PEERCRED` knows no supplementary groups, so what is left
//! to decide here is what a member may do and what only root may.

use thiserror::Error;

/// Every method of the control service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rpc {
    /// The state of tunnels.
    Status,
    /// The version of the daemon.
    Version,
    /// Bring a tunnel up.
    Up,
    /// Take a tunnel down.
    Down,
    /// Apply a changed configuration.
    Reload,
    /// Read a configuration.
    Check,
    /// Follow changes.
    Watch,
    /// Make an offer by hand.
    Offer,
    /// Answer an offer by hand.
    Answer,
    /// Take an answer by hand.
    Accept,
}

/// Who may call a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Everybody who could open the socket.
    Members,
    /// Only uid 0.
    Root,
}

/// One line of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// The method.
    pub rpc: Rpc,
    /// Its path in HTTP/2, as gRPC forms it.
    pub path: &'static str,
    /// Who may call it.
    pub who: Who,
}

/// The table. What is not in it is denied.
pub const RULES: &[Rule] = &[
    Rule { rpc: Rpc::Status, path: "/qanah.control.v1.Control/Status", who: Who::Members },
    Rule { rpc: Rpc::Version, path: "/qanah.control.v1.Control/Version", who: Who::Members },
    Rule { rpc: Rpc::Up, path: "/qanah.control.v1.Control/Up", who: Who::Members },
    Rule { rpc: Rpc::Down, path: "/qanah.control.v1.Control/Down", who: Who::Members },
    Rule { rpc: Rpc::Reload, path: "/qanah.control.v1.Control/Reload", who: Who::Members },
    Rule { rpc: Rpc::Check, path: "/qanah.control.v1.Control/Check", who: Who::Members },
    Rule { rpc: Rpc::Watch, path: "/qanah.control.v1.Control/Watch", who: Who::Members },
    Rule { rpc: Rpc::Offer, path: "/qanah.control.v1.Control/Offer", who: Who::Members },
    Rule { rpc: Rpc::Answer, path: "/qanah.control.v1.Control/Answer", who: Who::Members },
    Rule { rpc: Rpc::Accept, path: "/qanah.control.v1.Control/Accept", who: Who::Members },
];

/// What a request may ask for beyond what its method allows to everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Privilege {
    /// Options of a tunnel other than those that the daemon was started with.
    UpWithOptions,
    /// A configuration that is not a file of root's.
    ConfigText,
    /// To be told what the text of a configuration says where it is wrong.
    ConfigQuotes,
}

impl Privilege {
    /// All of them, so that a test can find one without a rule.
    pub const ALL: [Self; 3] = [Self::UpWithOptions, Self::ConfigText, Self::ConfigQuotes];

    /// What is asked for, in words; it continues "only root may ...".
    const fn describe(self) -> &'static str {
        match self {
            Self::UpWithOptions => {
                "give options with a tunnel (without them it gets those of the daemon)"
            }
            Self::ConfigText => {
                "give a configuration as text (a file in /etc/qanah can be named instead)"
            }
            Self::ConfigQuotes => "see what the configuration says there",
        }
    }
}

/// Who has which privilege. What is not in it nobody has.
pub const PRIVILEGES: &[(Privilege, Who)] = &[
    (Privilege::UpWithOptions, Who::Root),
    (Privilege::ConfigText, Who::Root),
    (Privilege::ConfigQuotes, Who::Root),
];

/// Who is at the other end of the socket, as the kernel says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// The effective user id at the time of the connection.
    pub uid: u32,
}

impl Caller {
    /// Whether the caller is root.
    pub const fn is_root(self) -> bool {
        self.uid == 0
    }
}

/// Why a call is denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Denial {
    /// The kernel did not say who calls.
    #[error("the system did not say who calls")]
    NoIdentity,
    /// The method is not in the table.
    #[error("this daemon has no such method")]
    UnknownMethod,
    /// Only root may call the method.
    #[error("only root may do this")]
    RootOnly,
    /// The request asks for more than its method allows to the caller.
    #[error("only root may {}", .0.describe())]
    Privileged(Privilege),
}

/// What is to be done with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The caller may call this method.
    Allow(Rpc),
    /// The call is refused.
    Deny(Denial),
}

/// Decides on one call by its caller and the path of its method.
pub fn decide(caller: Option<Caller>, path: &str) -> Decision {
    decide_by(RULES, caller, path)
}

fn decide_by(rules: &[Rule], caller: Option<Caller>, path: &str) -> Decision {
    let Some(caller) = caller else {
        return Decision::Deny(Denial::NoIdentity);
    };
    let Some(rule) = rules.iter().find(|rule| rule.path == path) else {
        return Decision::Deny(Denial::UnknownMethod);
    };
    match rule.who {
        Who::Members => Decision::Allow(rule.rpc),
        Who::Root if caller.is_root() => Decision::Allow(rule.rpc),
        Who::Root => Decision::Deny(Denial::RootOnly),
    }
}

/// Decides on one thing that a request asks for.
///
/// # Errors
///
/// Why the caller may not have it.
pub fn permit(caller: Option<Caller>, privilege: Privilege) -> Result<(), Denial> {
    let caller = caller.ok_or(Denial::NoIdentity)?;
    match PRIVILEGES.iter().find(|(of, _)| *of == privilege) {
        Some((_, Who::Members)) => Ok(()),
        Some((_, Who::Root)) if caller.is_root() => Ok(()),
        Some((_, Who::Root)) | None => Err(Denial::Privileged(privilege)),
    }
}

/// Why a text cannot be the name of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "a tunnel's name has 1 to 15 of the characters a-z A-Z 0-9 _ = + . - , does not start with - \
     and is not . or .. or qanahd"
)]
pub struct NameError;

/// Checks a name of a tunnel that came from outside.
///
/// It becomes a file name, an interface name (at most 15 bytes in Linux) and a command-line
/// argument of hooks, and `qanahd` is the name of the common socket.
///
/// # Errors
///
/// [`NameError`] when it is not such a name.
pub fn check_tunnel_name(name: &str) -> Result<&str, NameError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_=+.-".contains(&b);
    let possible = (1..=15).contains(&name.len())
        && name.bytes().all(plain)
        && !name.starts_with('-')
        && !matches!(name, "." | ".." | "qanahd");
    if possible { Ok(name) } else { Err(NameError) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: Option<Caller> = Some(Caller { uid: 0 });
    const MEMBER: Option<Caller> = Some(Caller { uid: 1000 });

    #[test]
    fn members_may_look() {
        for caller in [ROOT, MEMBER] {
            let decision = decide(caller, "/qanah.control.v1.Control/Status");
            assert_eq!(decision, Decision::Allow(Rpc::Status));
        }
    }

    #[test]
    fn what_is_not_in_the_table_is_denied_even_to_root() {
        let paths = [
            "",
            "/",
            "/qanah.control.v1.Control/Nonsense",
            "/qanah.control.v1.Control/status",
            "/qanah.control.v1.Control/Status/",
            "/qanah.control.v2.Control/Status",
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        ];
        for path in paths {
            assert_eq!(decide(ROOT, path), Decision::Deny(Denial::UnknownMethod), "{path}");
        }
    }

    #[test]
    fn nobody_without_an_identity() {
        for rule in RULES {
            assert_eq!(decide(None, rule.path), Decision::Deny(Denial::NoIdentity));
        }
    }

    #[test]
    fn rules_for_root_keep_members_out() {
        let rules = [Rule { rpc: Rpc::Version, path: "/x/Up", who: Who::Root }];
        assert_eq!(decide_by(&rules, ROOT, "/x/Up"), Decision::Allow(Rpc::Version));
        assert_eq!(decide_by(&rules, MEMBER, "/x/Up"), Decision::Deny(Denial::RootOnly));
    }

    #[test]
    fn a_method_has_one_rule() {
        for (i, rule) in RULES.iter().enumerate() {
            let twins = RULES.iter().skip(i + 1);
            assert!(!twins.into_iter().any(|t| t.path == rule.path || t.rpc == rule.rpc));
        }
    }

    #[test]
    fn a_privilege_has_one_rule_and_is_for_root() {
        for privilege in Privilege::ALL {
            let rules = PRIVILEGES.iter().filter(|(of, _)| *of == privilege);
            assert_eq!(rules.count(), 1, "{privilege:?}");
            assert_eq!(permit(ROOT, privilege), Ok(()));
            assert_eq!(permit(MEMBER, privilege), Err(Denial::Privileged(privilege)));
            assert_eq!(permit(None, privilege), Err(Denial::NoIdentity));
        }
        assert_eq!(PRIVILEGES.len(), Privilege::ALL.len());
    }

    #[test]
    fn names_of_tunnels() {
        for good in ["peer1", "a", "_=+.-", "a.b", "...", "fifteen-letters", "qanahd2"] {
            assert_eq!(check_tunnel_name(good), Ok(good));
        }
        let bad = ["", ".", "..", "qanahd", "-a", "a/b", "../x", "a b", "a\0", "ä", "a\n"];
        for bad in bad.into_iter().chain(["sixteen--letters"]) {
            assert_eq!(check_tunnel_name(bad), Err(NameError), "{bad:?}");
        }
    }
}
