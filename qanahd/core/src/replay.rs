//! The sliding window that refuses replayed counters.
