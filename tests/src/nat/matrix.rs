//! Runs pairs of sites, several at once.

use std::fs;
use std::path::PathBuf;
use std::str::FromStr as _;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use qanah_core::key::PublicKey;

use super::Site;
use super::servers::TURN6;
use super::theory::Path;
use crate::conf::{self, Conf, Identity, inner4, inner6, name};
use crate::daemon::{Daemon, Options};
use crate::lab::{HUB4, Lab};
use crate::ping::{first_ping, ping};
use crate::process::tail;
use crate::secure::TURN4;
use crate::wait::{eventually, secs};

/// Pairs at once. The processors are the limit: a pair that waits costs nothing.
pub const AT_ONCE: usize = 5;
/// How long a pair may take to connect, and again to find its best path, on a machine that does much else.
pub const LIMIT: Duration = secs(45);
/// How many lines of each log a failure shows.
const TAIL: usize = 60;

/// Where a peer of a cell stands, and how its daemon is started.
#[derive(Debug)]
pub struct Member {
    /// The site.
    pub site: Site,
    /// Options of its daemon.
    pub options: Options,
}

/// What was seen of a pair.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// How packets went in the end.
    pub path: Path,
    /// From the start of both daemons to the first answer.
    pub time: Duration,
    /// The path as `status` of the first shows it.
    pub detail: String,
}

/// The daemons of some sites, all of which know each other. The first two are the pair that it is about,
/// and the first of them offers.
#[derive(Debug)]
pub struct Group {
    dir: PathBuf,
    members: Vec<Member>,
    confs: Vec<Conf>,
    /// The daemons, in the order of the members.
    pub daemons: Vec<Daemon>,
    started: Instant,
}

impl Group {
    /// Starts the daemons of all members, with files beneath the directory of the lab.
    ///
    /// # Errors
    /// When one does not start.
    pub fn start(lab: &Lab, label: &str, members: Vec<Member>) -> Result<Self> {
        Self::start_with(lab, label, members, |_, _| {})
    }

    /// The same with configurations that `change` has changed. It is given the number of the member, from 1.
    ///
    /// # Errors
    /// When a daemon does not start.
    pub fn start_with(
        lab: &Lab,
        label: &str,
        members: Vec<Member>,
        change: impl Fn(usize, &mut Conf),
    ) -> Result<Self> {
        let dir = lab.dir().join(label);
        fs::create_dir(&dir)?;
        let mut confs = conf::mesh(&identities(members.len())?);
        (1..).zip(&mut confs).for_each(|(n, conf)| change(n, conf));
        let mut started = Instant::now();
        let mut group = Self { dir, members, confs, daemons: Vec::new(), started };
        // The others first: they are there for the pair.
        let mut daemons = Vec::new();
        for (index, (member, conf)) in group.members.iter().zip(&group.confs).enumerate().rev() {
            if index == 1 {
                started = Instant::now();
            }
            let place = member.site.place();
            daemons.push(Daemon::launch_in(&group.dir, place, index + 1, conf, &member.options)?);
        }
        daemons.reverse();
        group.daemons = daemons;
        group.started = started;
        Ok(group)
    }

    /// Ends the daemon of a member, counted from 1, and starts it anew.
    ///
    /// # Errors
    /// When it does not end or start.
    pub fn restart(&mut self, n: usize) -> Result<()> {
        let index = n.wrapping_sub(1);
        ensure!(index < self.daemons.len(), "no member {n}");
        self.daemons.remove(index).terminate()?;
        let member = self.members.get(index).ok_or_else(|| anyhow!("no member {n}"))?;
        let conf = self.confs.get(index).ok_or_else(|| anyhow!("no configuration {n}"))?;
        self.started = Instant::now();
        let place = member.site.place();
        let daemon = Daemon::launch_in(&self.dir, place, n, conf, &member.options)?;
        self.daemons.insert(index, daemon);
        Ok(())
    }

    /// From the start of the pair to the first answer to a ping, and no more.
    ///
    /// # Errors
    /// When there is none in time.
    pub fn first_answer(&self) -> Result<Duration> {
        let line = format!("ping -n -q -i 0.02 -c 1 -w {} {}", LIMIT.as_secs(), inner4(2));
        // Before the interface is there ping ends at once.
        eventually("an answer to ping", LIMIT, || self.daemon(1)?.place().run(&line))
            .with_context(|| self.logs())?;
        Ok(self.started.elapsed())
    }

    /// The site of a member, counted from 1.
    ///
    /// # Errors
    /// When there is none.
    pub fn site(&self, n: usize) -> Result<&Site> {
        let member = self.members.get(n.wrapping_sub(1)).ok_or_else(|| anyhow!("no member {n}"))?;
        Ok(&member.site)
    }

    /// The daemon of a member, counted from 1.
    ///
    /// # Errors
    /// When there is none.
    pub fn daemon(&self, n: usize) -> Result<&Daemon> {
        self.daemons.get(n.wrapping_sub(1)).ok_or_else(|| anyhow!("no daemon {n}"))
    }

    /// Waits for a ping, then for the path that is expected.
    ///
    /// # Errors
    /// When one does not come, with the ends of the logs.
    pub fn settles(&self, expected: Path) -> Result<Outcome> {
        self.try_settle(expected).with_context(|| self.logs())
    }

    fn try_settle(&self, expected: Path) -> Result<Outcome> {
        let one = self.daemon(1)?;
        first_ping(one.place(), &inner4(2), LIMIT)?;
        let time = self.started.elapsed();
        let detail = eventually(&format!("a path that is {expected}"), LIMIT, || {
            for (own, other) in [(2, 1), (1, 2)] {
                let (path, detail) = self.path(own, other)?;
                ensure!(path == expected, "at {own} it is {path}: {detail}");
            }
            Ok(self.path(1, 2)?.1)
        })?;
        for (from, to) in [(one, inner6(2)), (self.daemon(2)?, inner4(1))] {
            ping(from.place(), &format!("-c 2 -i 0.2 -W 5 {to}"))?.ensure_all()?;
        }
        Ok(Outcome { path: expected, time, detail })
    }

    /// The path of a member to another, and all that `status` says of it.
    ///
    /// # Errors
    /// When the daemon does not say.
    pub fn path(&self, own: usize, other: usize) -> Result<(Path, String)> {
        let status = self.daemon(own)?.status()?;
        let peer = status.peer(&name(other))?;
        let detail = peer.path();
        let path = if peer.via().is_some() {
            Path::Relay
        } else if !peer.is_direct() {
            Path::Nothing
        } else if peer.is_by_turn() {
            Path::Turn
        } else {
            // Not by its word alone: a TURN server's address passed for one of the peer's own before.
            let servers = [format!("{TURN4}:"), format!("{HUB4}:"), format!("[{TURN6}]:")];
            let by_server = servers.iter().any(|address| detail.contains(address));
            ensure!(!by_server, "what is called direct goes through a server: {detail}");
            Path::Direct
        };
        Ok((path, detail))
    }

    /// The ends of the logs.
    pub fn logs(&self) -> String {
        let logs = self.daemons.iter().zip(1..);
        let parts = logs.map(|(daemon, n)| format!("--- {n}:\n{}\n", tail(&daemon.log(), TAIL)));
        parts.collect()
    }
}

/// Keys of which the first is greater than the second: it offers.
fn identities(count: usize) -> Result<Vec<Identity>> {
    let mut list: Vec<Identity> = (0..count).map(|_| Identity::generate()).collect();
    let key = |index: usize| -> Result<PublicKey> {
        let identity = list.get(index).ok_or_else(|| anyhow!("two members are needed"))?;
        Ok(PublicKey::from_str(&identity.public)?)
    };
    if key(0)? < key(1)? {
        list.swap(0, 1);
    }
    Ok(list)
}

/// Does all jobs, [`AT_ONCE`] of them at a time, and gives what came of each in their order.
///
/// # Errors
/// When a thread panicked.
pub fn all<J: Send, T: Send>(
    jobs: Vec<J>,
    work: impl Fn(J) -> Result<T> + Sync,
) -> Result<Vec<Result<T>>> {
    let count = jobs.len();
    let queue = Mutex::new(jobs.into_iter().enumerate());
    let done = Mutex::new((0..count).map(|_| None).collect::<Vec<_>>());
    let next = || queue.lock().ok().and_then(|mut queue| queue.next());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some((index, job)) = next() {
                    let outcome = work(job);
                    if let Ok(mut done) = done.lock()
                        && let Some(place) = done.get_mut(index)
                    {
                        *place = Some(outcome);
                    }
                }
            });
        }
    });
    let done = done.into_inner().map_err(|_| anyhow!("a thread panicked"))?;
    done.into_iter().map(|one| one.ok_or_else(|| anyhow!("a job was not done"))).collect()
}
