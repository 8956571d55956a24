//! From lines to sections to a configuration.

use std::net::IpAddr;

use ipnet::IpNet;

use super::error::{ConfigError, ErrorKind, Level, Warnings, quote};
use super::keys::{Key, Section};
use super::lexer::{Content, Pair, read_line, text_of};
use super::values::{self, DnsWord};
use super::{
    Config, DEFAULT_MTU, Dns, Endpoint, Hooks, Interface, InterfaceLines, MAX_ADDRESSES, MAX_PEERS,
    Parsed, Peer, Table, verify,
};
use crate::key::{PresharedKey, PublicKey, SecretKey};

/// The `[Interface]` section while it is read.
#[derive(Default)]
pub(super) struct InterfaceDraft {
    pub(super) seen: Seen,
    pub(super) private_key: Option<SecretKey>,
    pub(super) addresses: Vec<(IpNet, usize)>,
    pub(super) listen_port: Option<u16>,
    pub(super) mtu: Option<u32>,
    pub(super) dns: Dns,
    table: Table,
    fw_mark: Option<u32>,
    save_config: bool,
    hooks: Hooks,
    pub(super) lines: InterfaceLines,
}

/// A `[Peer]` section while it is read.
#[derive(Default)]
pub(super) struct PeerDraft {
    pub(super) seen: Seen,
    pub(super) public_key: Option<PublicKey>,
    preshared_key: Option<PresharedKey>,
    pub(super) name: Option<(String, usize)>,
    pub(super) allowed_ips: Vec<(IpNet, usize)>,
    pub(super) endpoint: Option<Endpoint>,
    pub(super) persistent_keepalive: Option<u16>,
    pub(super) line: usize,
}

/// The keys of a section that were given, with their first lines.
#[derive(Default)]
pub(super) struct Seen(Vec<(Key, usize)>);

impl Seen {
    pub(super) fn line_of(&self, key: Key) -> Option<usize> {
        self.0.iter().find(|(seen, _)| *seen == key).map(|(_, line)| *line)
    }

    /// Notes a key. wg(8) lets the last of several win; that hides mistakes, so it is an error.
    fn note(&mut self, key: Key, line: usize) -> Result<(), ErrorKind> {
        match self.line_of(key) {
            Some(first) if !key.is_repeatable() => Err(ErrorKind::Duplicate { first }),
            Some(_) => Ok(()),
            None => {
                self.0.push((key, line));
                Ok(())
            }
        }
    }
}

#[derive(Default)]
struct Parser {
    section: Option<Section>,
    interface: Option<InterfaceDraft>,
    peers: Vec<PeerDraft>,
    warnings: Warnings,
}

/// Reads a configuration. The file is not named in the errors yet.
pub(super) fn parse(bytes: &[u8]) -> Result<Parsed, ConfigError> {
    let mut parser = Parser::default();
    for (index, line) in text_of(bytes)?.split('\n').enumerate() {
        let number = index + 1;
        match read_line(number, line)? {
            None => {}
            Some(Content::Section(section)) => parser.open(number, section)?,
            Some(Content::Comment(comment)) => parser.comment(number, comment),
            Some(Content::Pair(pair)) => parser.pair(number, &pair)?,
        }
    }
    let Parser { interface, mut peers, mut warnings, .. } = parser;
    let interface =
        interface.ok_or_else(|| ConfigError::whole_file(ErrorKind::MissingInterface))?;
    verify::check(&interface, &mut peers, &mut warnings)?;
    let config = finish(interface, peers)?;
    Ok(Parsed { config, warnings: warnings.into_sorted() })
}

impl Parser {
    fn open(&mut self, line: usize, section: Section) -> Result<(), ConfigError> {
        let fail = |kind| Err(ConfigError::at(line, None, kind));
        match section {
            Section::Interface => {
                if let Some(first) = &self.interface {
                    return fail(ErrorKind::SecondInterface { first: first.lines.header });
                }
                let lines = InterfaceLines { header: line, ..InterfaceLines::default() };
                self.interface = Some(InterfaceDraft { lines, ..InterfaceDraft::default() });
            }
            Section::Peer if self.peers.len() >= MAX_PEERS => {
                return fail(ErrorKind::TooManyPeers);
            }
            Section::Peer => self.peers.push(PeerDraft { line, ..PeerDraft::default() }),
        }
        self.section = Some(section);
        Ok(())
    }

    /// Comments mean nothing, but for `# Name = bob` above the first key of a peer.
    fn comment(&mut self, line: usize, comment: &str) {
        let (Some(Section::Peer), Some(peer)) = (self.section, self.peers.last_mut()) else {
            return;
        };
        if !peer.seen.0.is_empty() {
            return;
        }
        let Some(name) = values::peer_name(comment) else {
            return;
        };
        let ignored = match (name, &peer.name) {
            (Ok(name), None) => {
                peer.name = Some((name, line));
                return;
            }
            (Ok(_), Some((_, first))) => {
                format!("is the second one (the first is at line {first})")
            }
            (Err(reason), _) => reason.to_owned(),
        };
        let text = format!("this peer name {ignored}, so it is ignored; correct or remove it");
        self.warnings.add(Level::Warning, line, "Name", text);
    }

    fn pair(&mut self, line: usize, pair: &Pair<'_>) -> Result<(), ConfigError> {
        let key = Key::lookup(pair.key);
        let fail = |kind| ConfigError::at(line, key, kind);
        let section = self.section.ok_or_else(|| fail(ErrorKind::OutsideSection))?;
        let key = key.ok_or_else(|| fail(unknown_key(pair.key, section)))?;
        if key.section() != section {
            let (found, belongs) = (section.header(), key.section().header());
            return Err(fail(ErrorKind::WrongSection { found, belongs }));
        }
        let warnings = &mut self.warnings;
        match (section, &mut self.interface, self.peers.last_mut()) {
            (Section::Interface, Some(interface), _) => interface.set(line, key, pair, warnings),
            (Section::Peer, _, Some(peer)) => peer.set(line, key, pair.value, warnings),
            // Both are made together with `self.section`.
            _ => Err(ErrorKind::OutsideSection),
        }
        .map_err(fail)
    }
}

/// Unknown keys are quoted only when they are words: the line may be half of a private key,
/// whose final `=` makes it look like an assignment.
fn unknown_key(key: &str, section: Section) -> ErrorKind {
    let word = key.len() <= 32 && key.chars().all(|c| c.is_ascii_alphanumeric() || c == ' ');
    let shown = if word { quote(key) } else { None };
    ErrorKind::UnknownKey {
        shown: shown.map(|key| format!(" {key}")).unwrap_or_default(),
        section: section.header(),
        keys: section.key_list(),
    }
}

impl InterfaceDraft {
    fn set(
        &mut self,
        line: usize,
        key: Key,
        pair: &Pair<'_>,
        warnings: &mut Warnings,
    ) -> Result<(), ErrorKind> {
        self.seen.note(key, line)?;
        let value = pair.value;
        match key {
            Key::PrivateKey => {
                let key: SecretKey = values::key(value, "a key as `wg genkey` prints it")?;
                if key.expose().iter().all(|&byte| byte == 0) {
                    return Err(ErrorKind::ZeroKey);
                }
                self.private_key = Some(key);
            }
            Key::Address => self.add_addresses(line, value)?,
            Key::ListenPort => self.listen_port = values::listen_port(value)?,
            Key::Mtu => {
                self.mtu = Some(values::mtu(value)?);
                self.lines.mtu = line;
            }
            Key::Dns => {
                for word in values::words(value) {
                    match values::dns_word(word)? {
                        DnsWord::Server(address) => self.dns.servers.push(address),
                        DnsWord::Search(domain) => self.dns.search.push(domain),
                    }
                }
            }
            Key::Table => {
                self.table = values::table(value)?;
                self.lines.table = line;
            }
            Key::FwMark => {
                self.fw_mark = values::fw_mark(value)?;
                self.lines.fw_mark = line;
            }
            Key::SaveConfig => {
                self.save_config = values::boolean(value)?;
                self.lines.save_config = line;
            }
            _ => self.add_hook(line, key, pair.value_with_comment, warnings),
        }
        Ok(())
    }

    fn add_addresses(&mut self, line: usize, value: &str) -> Result<(), ErrorKind> {
        for word in values::words(value) {
            let net = values::prefix(word)?;
            let address = net.addr();
            let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
            if address.is_unspecified() || address.is_multicast() || broadcast {
                return Err(ErrorKind::NotUnicast(address));
            }
            if self.addresses.iter().any(|(known, _)| known.addr() == address) {
                return Err(ErrorKind::AddressTwice(address));
            }
            if self.addresses.len() >= MAX_ADDRESSES {
                return Err(ErrorKind::TooManyAddresses);
            }
            if net.prefix_len() == 0 && self.lines.default_route == 0 {
                self.lines.default_route = line;
            }
            self.addresses.push((net, line));
        }
        Ok(())
    }

    fn add_hook(&mut self, line: usize, key: Key, command: &str, warnings: &mut Warnings) {
        let (commands, first) = match key {
            Key::PreUp => (&mut self.hooks.pre_up, &mut self.lines.pre_up),
            Key::PostUp => (&mut self.hooks.post_up, &mut self.lines.post_up),
            Key::PreDown => (&mut self.hooks.pre_down, &mut self.lines.pre_down),
            _ => (&mut self.hooks.post_down, &mut self.lines.post_down),
        };
        if command.is_empty() {
            let text = "is empty and does nothing; remove the line".to_owned();
            warnings.add(Level::Warning, line, key.name(), text);
            return;
        }
        if commands.is_empty() {
            *first = line;
        }
        commands.push(command.to_owned());
    }
}

impl PeerDraft {
    fn set(
        &mut self,
        line: usize,
        key: Key,
        value: &str,
        warnings: &mut Warnings,
    ) -> Result<(), ErrorKind> {
        self.seen.note(key, line)?;
        match key {
            Key::PublicKey => {
                let key: PublicKey = values::key(value, "a key as `wg pubkey` prints it")?;
                if key.as_bytes().iter().all(|&byte| byte == 0) {
                    return Err(ErrorKind::ZeroKey);
                }
                self.public_key = Some(key);
            }
            Key::PresharedKey => {
                let key: PresharedKey = values::key(value, "a key as `wg genpsk` prints it")?;
                if key == PresharedKey::default() {
                    let text = "is all zeros, which means none; remove the line".to_owned();
                    warnings.add(Level::Warning, line, Key::PresharedKey.name(), text);
                } else {
                    self.preshared_key = Some(key);
                }
            }
            Key::AllowedIps => {
                for written in values::allowed_ips(value)? {
                    let net = written.trunc();
                    if net != written {
                        let text = format!("{written} has host bits set and is taken as {net}");
                        warnings.add(Level::Warning, line, key.name(), text);
                    }
                    self.allowed_ips.push((net, line));
                }
            }
            Key::Endpoint => self.endpoint = Some(values::endpoint(value)?),
            _ => self.persistent_keepalive = values::keepalive(value)?,
        }
        Ok(())
    }
}

/// Makes the configuration of checked sections.
fn finish(interface: InterfaceDraft, peers: Vec<PeerDraft>) -> Result<Config, ConfigError> {
    let missing = |line, key, kind| ConfigError::at(line, Some(key), kind);
    let header = interface.lines.header;
    let interface = Interface {
        private_key: interface
            .private_key
            .ok_or_else(|| missing(header, Key::PrivateKey, ErrorKind::MissingPrivateKey))?,
        addresses: interface.addresses.into_iter().map(|(net, _)| net).collect(),
        listen_port: interface.listen_port,
        mtu: interface.mtu.unwrap_or(DEFAULT_MTU),
        dns: interface.dns,
        table: interface.table,
        fw_mark: interface.fw_mark,
        save_config: interface.save_config,
        hooks: interface.hooks,
        lines: interface.lines,
    };
    let peers = peers.into_iter().map(|peer| {
        let is_default = |(net, line): &(IpNet, usize)| (net.prefix_len() == 0).then_some(*line);
        Ok(Peer {
            public_key: peer
                .public_key
                .ok_or_else(|| missing(peer.line, Key::PublicKey, ErrorKind::MissingPublicKey))?,
            preshared_key: peer.preshared_key,
            name: peer.name.map(|(name, _)| name),
            default_route_line: peer.allowed_ips.iter().find_map(is_default).unwrap_or_default(),
            allowed_ips: peer.allowed_ips.into_iter().map(|(net, _)| net).collect(),
            endpoint: peer.endpoint,
            persistent_keepalive: peer.persistent_keepalive,
            line: peer.line,
        })
    });
    Ok(Config { interface, peers: peers.collect::<Result<_, ConfigError>>()? })
}
