//! The frame codec: what one data channel message holds.
