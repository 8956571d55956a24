//! A mesh of five in which links are cut, daemons die and addresses change, in an order that a seed decides.
//!
//! A short run is a part of every test run; `tests/run --long` takes half an hour. Another seed by `QANAH_CHAOS_SEED`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use qanah_tests::conf::inner4;
use qanah_tests::daemon::figure;
use qanah_tests::lab::{Lab, Underlay, in_lab_over};
use qanah_tests::mesh::{CONNECT, Mesh};
use qanah_tests::ping::{Pinger, ping};
use qanah_tests::wait::{eventually, secs};
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

const NODES: usize = 5;

/// After so much quiet everybody who can be reached is.
const QUIET: Duration = secs(20);

/// What may happen, and what it is called in the results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    Cut,
    CutOneWay,
    Mend,
    Terminate,
    Kill,
    Move,
    LinkDown,
    Broker,
    Sleep,
}

const FAULTS: [(Fault, &str); 9] = [
    (Fault::Cut, "a link is cut"),
    (Fault::CutOneWay, "a link is cut one way"),
    (Fault::Mend, "a link is mended"),
    (Fault::Terminate, "a daemon is restarted"),
    (Fault::Kill, "a daemon is killed and started"),
    (Fault::Move, "an address changes"),
    (Fault::LinkDown, "an interface is down for 1 s"),
    (Fault::Broker, "the broker is restarted"),
    (Fault::Sleep, "a machine sleeps for 5 s"),
];

struct Chaos<'a> {
    lab: &'a Lab,
    mesh: Mesh,
    rng: ChaCha8Rng,
    cut: BTreeSet<(usize, usize)>,
    moved: BTreeSet<usize>,
    pingers: BTreeMap<(usize, usize), Pinger>,
    longest: BTreeMap<Fault, Duration>,
    rounds: BTreeMap<Fault, u32>,
}

impl Chaos<'_> {
    fn below(&mut self, limit: usize) -> usize {
        self.rng.next_u32() as usize % limit
    }

    fn two(&mut self) -> (usize, usize) {
        let a = self.below(NODES);
        let b = (a + 1 + self.below(NODES - 1)) % NODES;
        (a + 1, b + 1)
    }

    fn linked(&self, a: usize, b: usize) -> bool {
        !self.cut.contains(&(a, b)) && !self.cut.contains(&(b, a))
    }

    fn reachable(&self, a: usize, b: usize) -> bool {
        let by = |relay| self.linked(a, relay) && self.linked(relay, b);
        self.linked(a, b) || (1..=NODES).filter(|it| *it != a && *it != b).any(by)
    }

    fn pairs(&self) -> Vec<(usize, usize)> {
        let all = (1..=NODES).flat_map(|a| (a + 1..=NODES).map(move |b| (a, b)));
        all.filter(|(a, b)| self.reachable(*a, *b)).collect()
    }

    /// Does it, or nothing where it cannot be done now.
    fn perform(&mut self, fault: Fault) -> Result<bool> {
        let lab = self.lab;
        let (a, b) = self.two();
        let (one, two) = (lab.node(a)?, lab.node(b)?);
        match fault {
            // Some links must be left, or there is nothing to see.
            Fault::Cut | Fault::CutOneWay if self.cut.len() > 8 => return Ok(false),
            Fault::Cut => {
                one.cut_from(two)?;
                self.cut.extend([(a, b), (b, a)]);
            }
            Fault::CutOneWay => {
                one.drop_from(two)?;
                self.cut.insert((b, a));
            }
            Fault::Mend => {
                let Some((a, b)) = self.cut.first().copied() else {
                    return Ok(false);
                };
                lab.node(a)?.mend_with(lab.node(b)?)?;
                self.cut.retain(|pair| *pair != (a, b) && *pair != (b, a));
            }
            Fault::Terminate => {
                self.mesh.take(a)?.terminate()?;
                self.mesh.up(lab, a)?;
            }
            Fault::Kill => {
                self.mesh.take(a)?.stop(Signal::SIGKILL)?;
                self.mesh.up(lab, a)?;
            }
            Fault::Move => {
                let to_other = !self.moved.remove(&a);
                one.move_address(to_other)?;
                if to_other {
                    self.moved.insert(a);
                }
            }
            // It comes back with its first address.
            Fault::LinkDown if self.moved.contains(&a) => return Ok(false),
            Fault::LinkDown => {
                one.link_down()?;
                std::thread::sleep(secs(1));
                one.link_up(lab.underlay())?;
            }
            Fault::Broker => {
                self.mesh.broker.take().context("no broker")?.stop()?;
                self.mesh.broker = Some(lab.broker()?);
            }
            Fault::Sleep => {
                self.mesh.daemon(a)?.signal(Signal::SIGSTOP)?;
                std::thread::sleep(secs(5));
                self.mesh.daemon(a)?.signal(Signal::SIGCONT)?;
            }
        }
        Ok(true)
    }

    /// One fault and what comes of it. False when it could not be done.
    fn round(&mut self, fault: Fault) -> Result<bool> {
        let since = SystemTime::now();
        if !self.perform(fault)? {
            return Ok(false);
        }
        let pairs = self.pairs();
        let what = format!("pings between {pairs:?} after {fault:?}, cut are {:?}", self.cut);
        eventually(&what, QUIET, || {
            for (a, b) in &pairs {
                for (from, to) in [(a, b), (b, a)] {
                    let place = self.mesh.daemon(*from)?.place();
                    let once = ping(place, &format!("-c 1 -W 1 {}", inner4(*to)))?;
                    ensure!(once.received == 1, "{from} to {to}: {}", once.text);
                }
            }
            Ok(())
        })?;
        // Let it show if it does not last.
        std::thread::sleep(secs(3));
        let gaps = pairs
            .iter()
            .filter_map(|pair| Some((self.pingers.get(pair)?.longest_gap_since(since), *pair)));
        let (gap, pair) = gaps.max().unwrap_or_default();
        let longest = self.longest.entry(fault).or_default();
        *longest = gap.max(*longest);
        *self.rounds.entry(fault).or_default() += 1;
        println!("{fault:?}: {gap:?} between {pair:?}, cut are {:?}", self.cut);
        Ok(true)
    }
}

#[test]
fn after_each_fault_everybody_who_can_be_reached_is() -> Result<()> {
    let seed = std::env::var("QANAH_CHAOS_SEED").ok().and_then(|text| text.parse().ok());
    let seed: u64 = seed.unwrap_or(20_261_125);
    let long = std::env::var_os("QANAH_LONG").is_some();
    let limit = if long { secs(30 * 60) } else { secs(100) };
    in_lab_over(Underlay::V4, NODES, |lab| {
        let mesh = Mesh::start(lab)?;
        let mut pingers = BTreeMap::new();
        for a in 1..=NODES {
            for b in a + 1..=NODES {
                let pinger = Pinger::start(lab, lab.node(a)?.place(), &inner4(b))?;
                pingers.insert((a, b), pinger);
            }
        }
        for (pair, pinger) in &pingers {
            eventually(&format!("answers between {pair:?}"), CONNECT, || {
                ensure!(pinger.answers() > 5, "only {}", pinger.answers());
                Ok(())
            })?;
        }
        let mut chaos = Chaos {
            lab,
            mesh,
            rng: ChaCha8Rng::seed_from_u64(seed),
            cut: BTreeSet::new(),
            moved: BTreeSet::new(),
            pingers,
            longest: BTreeMap::new(),
            rounds: BTreeMap::new(),
        };
        // Every fault once, then whatever comes.
        let start = Instant::now();
        for (fault, _) in FAULTS {
            chaos.round(fault)?;
        }
        while start.elapsed() < limit {
            let (fault, _) = FAULTS[chaos.below(FAULTS.len())];
            chaos.round(fault)?;
        }
        for (fault, what) in FAULTS {
            let count = chaos.rounds.get(&fault).copied().unwrap_or(0);
            ensure!(count > 0, "{what}: never");
            let longest = chaos.longest.get(&fault).copied().unwrap_or_default();
            figure(
                &format!("longest outage when {what} ({count} times), s"),
                format!("{:.1}", longest.as_secs_f64()),
            );
        }
        Ok(())
    })
}
