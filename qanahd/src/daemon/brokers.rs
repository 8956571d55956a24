//! The connections to brokers: one set for each set of brokers that tunnels want, shared by them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Instant;

use qanah_core::config::TunnelName;
use qanah_core::router::PeerId;
use tokio::sync::mpsc;

use crate::control::report::{BrokerReport, Drops};
use crate::mqtt::{self, MqttError, Signaling};

/// Room for the events of one set. What comes while it is full is dropped and counted.
const QUEUE: usize = 512;

/// Names a set of brokers. Not used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SetId(u64);

/// All sets in use.
pub(super) struct Brokers {
    sets: BTreeMap<SetId, Set>,
    next: u64,
    events: mpsc::Sender<(SetId, mqtt::Event)>,
}

struct Set {
    settings: mqtt::Settings,
    signaling: Signaling,
    inboxes: Inboxes,
    /// Tunnels that use it.
    users: usize,
    /// It stays when nobody uses it: whoever may bring tunnels up and down in a row should not be
    /// able to make connections in a row.
    lasting: bool,
}

impl Brokers {
    /// No sets yet. The events of all that come go to `events`.
    pub(super) fn new(events: mpsc::Sender<(SetId, mqtt::Event)>) -> Self {
        Self { sets: BTreeMap::new(), next: 0, events }
    }

    /// The set with these settings for one more user; begins to connect when it is new.
    ///
    /// # Errors
    /// See [`Signaling::start`].
    pub(super) fn acquire(
        &mut self,
        settings: &mqtt::Settings,
        lasting: bool,
    ) -> Result<(SetId, Signaling), MqttError> {
        let same = self.sets.iter_mut().find(|(_, set)| set.settings == *settings);
        if let Some((id, set)) = same {
            set.users += 1;
            set.lasting |= lasting;
            return Ok((*id, set.signaling.clone()));
        }
        let (sender, mut receiver) = mpsc::channel(QUEUE);
        let signaling = Signaling::start(settings.clone(), sender)?;
        let id = SetId(self.next);
        self.next += 1;
        let events = self.events.clone();
        tokio::spawn(async move {
            while let Some(event) = receiver.recv().await {
                if events.send((id, event)).await.is_err() {
                    return;
                }
            }
        });
        let set = Set {
            settings: settings.clone(),
            signaling: signaling.clone(),
            inboxes: Inboxes::default(),
            users: 1,
            lasting,
        };
        self.sets.insert(id, set);
        Ok((id, signaling))
    }

    /// A tunnel does not use the set any more.
    pub(super) fn release(&mut self, id: SetId, tunnel: &TunnelName) {
        self.assign(id, tunnel, HashMap::new());
        let Some(set) = self.sets.get_mut(&id) else {
            return;
        };
        set.users = set.users.saturating_sub(1);
        if set.users == 0
            && !set.lasting
            && let Some(set) = self.sets.remove(&id)
        {
            tokio::spawn(set.signaling.stop());
        }
    }

    /// These are the inboxes of a tunnel from now on.
    pub(super) fn assign(
        &mut self,
        id: SetId,
        tunnel: &TunnelName,
        inboxes: HashMap<String, PeerId>,
    ) {
        if let Some(set) = self.sets.get_mut(&id) {
            let (added, removed) = set.inboxes.assign(tunnel, inboxes);
            if !added.is_empty() {
                set.signaling.subscribe(added);
            }
            if !removed.is_empty() {
                set.signaling.unsubscribe(removed);
            }
        }
    }

    /// Whether any broker of the set is connected.
    pub(super) fn is_connected(&self, id: SetId) -> bool {
        let set = self.sets.get(&id);
        set.is_some_and(|set| set.signaling.status().iter().any(|status| status.connected))
    }

    /// Whom a message in this inbox is for.
    pub(super) fn owners(&self, id: SetId, topic: &str) -> Vec<(TunnelName, PeerId)> {
        self.sets.get(&id).map(|set| set.inboxes.owners(topic)).unwrap_or_default()
    }

    /// How a set looks from outside: its brokers, and what was dropped on the way from and to them.
    pub(super) fn report(&self, id: SetId) -> (Vec<BrokerReport>, Drops) {
        let Some(set) = self.sets.get(&id) else {
            return Default::default();
        };
        let now = Instant::now();
        let statuses = set.signaling.status().into_iter();
        let brokers = statuses.map(|status| BrokerReport {
            label: status.broker,
            connected: status.connected,
            error: status.last_error,
            since: now.saturating_duration_since(status.since),
        });
        let counters = set.signaling.counters();
        let drops = [
            ("broker_ignored", counters.ignored),
            ("broker_throttled", counters.throttled),
            ("broker_overflowed", counters.overflowed),
            ("broker_unsent", counters.unsent),
        ];
        (brokers.collect(), drops.into_iter().filter(|(_, count)| *count > 0).collect())
    }

    /// Disconnects from all of them.
    pub(super) async fn stop(self) {
        let sets = self.sets.into_values().map(|set| set.signaling.stop());
        futures_util::future::join_all(sets).await;
    }
}

/// Which inbox belongs to which peer of which tunnel. Two tunnels may have the same one, when their
/// configurations have the same keys.
#[derive(Debug, Default)]
struct Inboxes(HashMap<String, BTreeMap<TunnelName, PeerId>>);

impl Inboxes {
    /// Replaces the inboxes of a tunnel; returns the topics that are new and those that nobody has any
    /// more.
    fn assign(
        &mut self,
        tunnel: &TunnelName,
        inboxes: HashMap<String, PeerId>,
    ) -> (Vec<String>, Vec<String>) {
        let had: BTreeSet<String> =
            self.0.iter().filter(|(_, o)| o.contains_key(tunnel)).map(|(t, _)| t.clone()).collect();
        let mut added = Vec::new();
        let mut removed = Vec::new();
        for topic in had {
            if inboxes.contains_key(&topic) {
                continue;
            }
            if let Some(owners) = self.0.get_mut(&topic) {
                owners.remove(tunnel);
                if owners.is_empty() {
                    self.0.remove(&topic);
                    removed.push(topic);
                }
            }
        }
        for (topic, peer) in inboxes {
            let owners = self.0.entry(topic.clone()).or_default();
            if owners.is_empty() {
                added.push(topic);
            }
            owners.insert(tunnel.clone(), peer);
        }
        (added, removed)
    }

    fn owners(&self, topic: &str) -> Vec<(TunnelName, PeerId)> {
        let owners = self.0.get(topic).into_iter().flatten();
        owners.map(|(tunnel, peer)| (tunnel.clone(), *peer)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> TunnelName {
        text.parse().unwrap()
    }

    fn topics(of: &[(&str, u32)]) -> HashMap<String, PeerId> {
        of.iter().map(|(topic, id)| ((*topic).to_owned(), PeerId(*id))).collect()
    }

    #[test]
    fn an_inbox_lives_as_long_as_somebody_has_it() {
        let mut inboxes = Inboxes::default();
        let (mut added, removed) = inboxes.assign(&name("a"), topics(&[("x", 0), ("y", 1)]));
        added.sort();
        assert_eq!((added, removed), (vec!["x".to_owned(), "y".into()], vec![]));
        assert_eq!(inboxes.assign(&name("b"), topics(&[("x", 7)])), (vec![], vec![]));
        assert_eq!(inboxes.owners("x"), [(name("a"), PeerId(0)), (name("b"), PeerId(7))]);
        assert_eq!(
            inboxes.assign(&name("a"), topics(&[("z", 2)])),
            (vec!["z".into()], vec!["y".into()])
        );
        assert_eq!(inboxes.owners("x"), [(name("b"), PeerId(7))]);
        assert_eq!(inboxes.assign(&name("b"), topics(&[])), (vec![], vec!["x".into()]));
        assert!(inboxes.owners("x").is_empty());
    }

    #[tokio::test]
    async fn tunnels_with_the_same_brokers_share_a_set() {
        let (events, _receiver) = mpsc::channel(8);
        let mut brokers = Brokers::new(events);
        let none = mqtt::Settings::default();
        let other = mqtt::Settings::default();
        let (first, _) = brokers.acquire(&none, false).unwrap();
        let (second, _) = brokers.acquire(&other, false).unwrap();
        assert_eq!(first, second);
        brokers.release(first, &name("a"));
        assert_eq!(brokers.sets.len(), 1);
        brokers.release(first, &name("b"));
        assert_eq!(brokers.sets.len(), 0);
        let (third, _) = brokers.acquire(&none, true).unwrap();
        assert_ne!(first, third);
        brokers.release(third, &name("a"));
        assert_eq!(brokers.sets.len(), 1, "it is to stay");
        brokers.stop().await;
    }
}
