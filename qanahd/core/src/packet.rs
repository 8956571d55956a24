//! A checked view of an IPv4 or IPv6 packet.
