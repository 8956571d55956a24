//! One module a command.

pub(crate) mod accept;
pub(crate) mod answer;
pub(crate) mod check;
pub(crate) mod completions;
pub(crate) mod down;
pub(crate) mod keys;
pub(crate) mod offer;
mod pairing;
pub(crate) mod reload;
pub(crate) mod status;
mod status_json;
pub(crate) mod up;
pub(crate) mod version;
pub(crate) mod watch;
mod watch_view;
