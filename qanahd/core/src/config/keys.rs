//! The keys of the two sections, and who defines them.

/// A section of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    Interface,
    Peer,
}

impl Section {
    /// Reads a section name from a line without white space. Letter case does not matter.
    pub(super) fn from_header(squeezed: &str) -> Option<Self> {
        if squeezed.eq_ignore_ascii_case("[Interface]") {
            Some(Self::Interface)
        } else if squeezed.eq_ignore_ascii_case("[Peer]") {
            Some(Self::Peer)
        } else {
            None
        }
    }

    pub(super) const fn header(self) -> &'static str {
        match self {
            Self::Interface => "[Interface]",
            Self::Peer => "[Peer]",
        }
    }

    /// The keys of the section, for messages.
    pub(super) fn key_list(self) -> String {
        let names: Vec<&str> =
            Key::ALL.into_iter().filter(|key| key.section() == self).map(Key::name).collect();
        names.join(", ")
    }
}

/// A key of the file format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::enum_variant_names)] // Some keys of the format are called keys.
pub(super) enum Key {
    PrivateKey,
    Address,
    ListenPort,
    Mtu,
    Dns,
    Table,
    FwMark,
    SaveConfig,
    PreUp,
    PostUp,
    PreDown,
    PostDown,
    PublicKey,
    PresharedKey,
    AllowedIps,
    Endpoint,
    PersistentKeepalive,
}

impl Key {
    pub(super) const ALL: [Self; 17] = [
        Self::PrivateKey,
        Self::Address,
        Self::ListenPort,
        Self::Mtu,
        Self::Dns,
        Self::Table,
        Self::FwMark,
        Self::SaveConfig,
        Self::PreUp,
        Self::PostUp,
        Self::PreDown,
        Self::PostDown,
        Self::PublicKey,
        Self::PresharedKey,
        Self::AllowedIps,
        Self::Endpoint,
        Self::PersistentKeepalive,
    ];

    /// The spelling of the manual pages.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::PrivateKey => "PrivateKey",
            Self::Address => "Address",
            Self::ListenPort => "ListenPort",
            Self::Mtu => "MTU",
            Self::Dns => "DNS",
            Self::Table => "Table",
            Self::FwMark => "FwMark",
            Self::SaveConfig => "SaveConfig",
            Self::PreUp => "PreUp",
            Self::PostUp => "PostUp",
            Self::PreDown => "PreDown",
            Self::PostDown => "PostDown",
            Self::PublicKey => "PublicKey",
            Self::PresharedKey => "PresharedKey",
            Self::AllowedIps => "AllowedIPs",
            Self::Endpoint => "Endpoint",
            Self::PersistentKeepalive => "PersistentKeepalive",
        }
    }

    pub(super) const fn section(self) -> Section {
        match self {
            Self::PublicKey
            | Self::PresharedKey
            | Self::AllowedIps
            | Self::Endpoint
            | Self::PersistentKeepalive => Section::Peer,
            _ => Section::Interface,
        }
    }

    /// Whether wg(8) reads the key. It drops all white space of a line, also inside of words,
    /// where wg-quick(8) only trims; a `Post Up` is no key for either.
    const fn is_of_wg(self) -> bool {
        matches!(
            self,
            Self::PrivateKey
                | Self::ListenPort
                | Self::FwMark
                | Self::PublicKey
                | Self::PresharedKey
                | Self::AllowedIps
                | Self::Endpoint
                | Self::PersistentKeepalive
        )
    }

    /// Whether the key may stand in its section more than once.
    pub(super) const fn is_repeatable(self) -> bool {
        matches!(
            self,
            Self::Address
                | Self::Dns
                | Self::AllowedIps
                | Self::PreUp
                | Self::PostUp
                | Self::PreDown
                | Self::PostDown
        )
    }

    /// Finds a key by its text, in any letter case.
    pub(super) fn lookup(text: &str) -> Option<Self> {
        let trimmed = text.trim();
        let squeezed = squeeze(text);
        Self::ALL.into_iter().find(|key| {
            let written = if key.is_of_wg() { squeezed.as_str() } else { trimmed };
            written.eq_ignore_ascii_case(key.name())
        })
    }
}

/// The text without any white space.
pub(super) fn squeeze(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_in_any_case_and_with_the_white_space_that_each_tool_allows() {
        for key in Key::ALL {
            assert_eq!(Key::lookup(&key.name().to_uppercase()), Some(key));
            assert_eq!(Key::lookup(&format!("\t{} ", key.name().to_lowercase())), Some(key));
        }
        assert_eq!(Key::lookup("Allowed IPs"), Some(Key::AllowedIps));
        assert_eq!(Key::lookup("Post Up"), None);
        assert_eq!(Key::lookup(""), None);
    }

    #[test]
    fn the_manual_page_has_every_key() {
        let page = include_str!("../../../../packaging/man/qanah.conf.5");
        let at = |text: &str| page.find(text).expect(text);
        let (interface, peer) = (at("KEYS OF [Interface]"), at("KEYS OF [Peer]"));
        for key in Key::ALL {
            let (from, to) = match key.section() {
                Section::Interface => (interface, peer),
                Section::Peer => (peer, at(".SH EXAMPLE")),
            };
            let entries = page[from..to].lines().filter(|line| line.starts_with(".B"));
            let is_in = |line: &str| line.split([' ', ',', '"']).any(|word| word == key.name());
            assert!(entries.into_iter().any(is_in), "{} is not in qanah.conf(5)", key.name());
        }
    }
}
