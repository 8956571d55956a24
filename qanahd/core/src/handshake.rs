//! The Noise handshake and the key schedule.
