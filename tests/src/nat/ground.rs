//! The ground for tests with sites: a hub with the servers, and places on its bridge.

use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::Result;

use super::matrix::{Group, Member, Outcome};
use super::servers::Servers;
use super::theory::Path;
use super::{Kind, Site};
use crate::daemon::Options;
use crate::lab::{Lab, Underlay};

/// The lab of a table: the hub, the servers, and places on the bridge for sites.
#[derive(Debug)]
pub struct Ground {
    /// The hub.
    pub lab: Lab,
    /// The servers there.
    pub servers: Servers,
    next: AtomicU8,
}

impl Ground {
    /// Makes the lab and starts the servers.
    ///
    /// # Errors
    /// When the machine does not let us, or a server does not start.
    pub fn new() -> Result<Self> {
        let lab = Lab::new(0, Underlay::Both)?;
        let servers = Servers::start(&lab)?;
        Ok(Self { lab, servers, next: AtomicU8::new(1) })
    }

    /// A site that knows the servers.
    ///
    /// # Errors
    /// When the machine does not let us.
    pub fn site(&self, make: impl FnOnce(&Lab, u8) -> Result<Site>) -> Result<Site> {
        let site = make(&self.lab, self.next.fetch_add(1, Ordering::Relaxed))?;
        Servers::names(site.place())?;
        Ok(site)
    }

    /// A site of this kind that knows the servers.
    ///
    /// # Errors
    /// When the machine does not let us.
    pub fn of_kind(&self, kind: Kind) -> Result<Site> {
        self.site(|lab, number| Site::new(lab, number, kind))
    }

    /// Connects two sites with a TURN server.
    ///
    /// # Errors
    /// When they do not connect, or by another path.
    pub fn by_turn(&self, label: &str, sites: [Site; 2], expected: Path) -> Result<Outcome> {
        self.pair(label, sites, self.servers.options_with_turn(), expected)
    }

    /// Connects two sites with these options.
    ///
    /// # Errors
    /// When they do not connect, or by another path.
    pub fn pair(
        &self,
        label: &str,
        sites: [Site; 2],
        options: Options,
        expected: Path,
    ) -> Result<Outcome> {
        self.start(label, sites, options)?.settles(expected)
    }

    /// Starts the daemons of two sites.
    ///
    /// # Errors
    /// When one does not start.
    pub fn start(&self, label: &str, sites: [Site; 2], options: Options) -> Result<Group> {
        let member = |site| Member { site, options: options.clone() };
        Group::start(&self.lab, label, sites.map(member).into())
    }

    /// Connects two sites with a third peer and no TURN server.
    ///
    /// # Errors
    /// When they do not connect, or by another path.
    pub fn by_peer(&self, label: &str, kinds: [Kind; 2], expected: Path) -> Result<Outcome> {
        let options = self.servers.options();
        let members = [kinds[0], kinds[1], Kind::Open]
            .map(|kind| Ok(Member { site: self.of_kind(kind)?, options: options.clone() }));
        let members = members.into_iter().collect::<Result<_>>()?;
        Group::start(&self.lab, label, members)?.settles(expected)
    }
}
