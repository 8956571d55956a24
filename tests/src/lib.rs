//! The lab in which Qanah is tested end to end.
//!
//! A [`Lab`] is a hub and some nodes, each with a network and a mount namespace of its own, joined
//! by a bridge in the hub. The broker (mosquitto) and the STUN and TURN server (coturn) are the
//! real ones and run in the hub; every node may run a `qanahd`.
//!
//! Nothing of it has a name outside of the lab: a namespace lives as long as a process in it, and
//! every process dies with the test that started it, however that one ends. So any number of labs
//! run beside each other and nothing is left behind.

pub mod behind;
pub mod bench;
pub mod conf;
pub mod daemon;
pub mod hand;
pub mod lab;
pub mod link;
pub mod machine;
pub mod measure;
pub mod mesh;
pub mod nat;
pub mod node;
pub mod ns;
pub mod people;
pub mod ping;
pub mod process;
pub mod secure;
pub mod servers;
pub mod shapes;
pub mod status;
pub mod story;
pub mod talk;
pub mod tcp;
pub mod terminal;
pub mod udp;
pub mod wait;
pub mod wedge;

pub use conf::{Conf, PeerConf};
pub use daemon::Daemon;
pub use lab::{Lab, Node, Underlay, in_lab};
pub use link::{Link, Loss, Queue, Way};
pub use machine::{Image, Machine};
pub use mesh::Mesh;
pub use ns::Place;
pub use ping::{PingStats, Pinger};
pub use process::Proc;
pub use status::Status;
pub use wait::{eventually, secs};
