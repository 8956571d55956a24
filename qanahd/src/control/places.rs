//! Places that clients can take, so many and no more, counted by user.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many places there are, and for whom.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// At once, for everybody.
    pub(super) all: usize,
    /// Of these, how many only root can have.
    pub(super) reserved_for_root: usize,
    /// Of one user who is not root.
    pub(super) per_user: usize,
}

/// Counts places by user.
#[derive(Debug)]
pub(super) struct Places {
    room: Room,
    held: Mutex<HashMap<u32, usize>>,
}

impl Places {
    pub(super) fn new(room: Room) -> Arc<Self> {
        Arc::new(Self { room, held: Mutex::default() })
    }

    fn held(&self) -> MutexGuard<'_, HashMap<u32, usize>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for `uid`, if there is one.
    pub(super) fn take(self: &Arc<Self>, uid: u32) -> Option<Place> {
        let mut held = self.held();
        let total: usize = held.values().sum();
        let own = held.get(&uid).copied().unwrap_or(0);
        let room = &self.room;
        let free = if uid == 0 {
            total < room.all
        } else {
            let shared = room.all.saturating_sub(room.reserved_for_root);
            total < shared && own < room.per_user
        };
        free.then(|| {
            held.insert(uid, own + 1);
            Place { places: Arc::clone(self), uid }
        })
    }
}

/// One place, given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    uid: u32,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.places.held();
        if let Some(count) = held.get_mut(&self.uid) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_can_take_all_places() {
        let places = Places::new(Room { all: 10, reserved_for_root: 2, per_user: 5 });
        let take =
            |uid, n| -> Vec<Place> { std::iter::from_fn(|| places.take(uid)).take(n).collect() };
        let one = take(1000, 99);
        assert_eq!(one.len(), 5);
        let other = take(1001, 99);
        assert_eq!(other.len(), 3);
        let root = take(0, 99);
        assert_eq!(root.len(), 2);
        drop((one, other, root));
        assert!(places.held().is_empty());
        assert_eq!(take(0, 99).len(), 10);
    }
}
