//! Sealing and opening frames: one key, one direction, one carrier.
