//! The attempts under way with one peer: one by the inboxes, and by hand one for each role.

use super::state::{Session, Way};
use crate::signal::SessionId;

/// Attempts that are told apart by their ids. At most three: see [`Pending::rival`].
#[derive(Default)]
pub(super) struct Pending(Vec<Session>);

impl Pending {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Session> {
        self.0.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Session> {
        self.0.iter_mut()
    }

    pub(super) fn ids(&self) -> Vec<SessionId> {
        self.iter().map(|session| session.id).collect()
    }

    /// The attempt by the inboxes.
    pub(super) fn by_inbox(&self) -> Option<&Session> {
        self.iter().find(|session| !session.way.is_by_hand())
    }

    pub(super) fn by_inbox_mut(&mut self) -> Option<&mut Session> {
        self.iter_mut().find(|session| !session.way.is_by_hand())
    }

    pub(super) fn get(&self, id: SessionId) -> Option<&Session> {
        self.iter().find(|session| session.id == id)
    }

    pub(super) fn get_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        self.iter_mut().find(|session| session.id == id)
    }

    /// The attempt that a newer one of this way and role replaces. By hand an offer and an answer
    /// stand side by side: two people who each make an offer, and each answer the other's, shall
    /// not void both.
    pub(super) fn rival(&self, way: Way, offerer: bool) -> Option<SessionId> {
        let by_hand = way.is_by_hand();
        self.iter()
            .find(|it| it.way.is_by_hand() == by_hand && (!by_hand || it.offerer == offerer))
            .map(|session| session.id)
    }

    /// Adds an attempt; the caller has ended its rival.
    pub(super) fn put(&mut self, session: Session) {
        self.0.push(session);
    }

    pub(super) fn take(&mut self, id: SessionId) -> Option<Session> {
        let at = self.0.iter().position(|session| session.id == id)?;
        Some(self.0.remove(at))
    }

    pub(super) fn take_by_inbox(&mut self) -> Option<Session> {
        let id = self.by_inbox()?.id;
        self.take(id)
    }

    pub(super) fn take_all(&mut self) -> Vec<Session> {
        std::mem::take(&mut self.0)
    }
}
