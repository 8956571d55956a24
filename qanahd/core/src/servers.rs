//! Addresses of brokers, STUN and TURN servers as users write them.
