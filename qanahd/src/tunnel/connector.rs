//! One task a session: does what the session machine wants of WebRTC, in order, and reports.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use ipnet::IpNet;
use qanah_core::session::RtcCommand;
use qanah_core::signal::{IceCredentials, RtcDescription};
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::address::Address;
use crate::platform::addresses::{foreign_prefixes, local_addresses};
use crate::platform::interfaces::Interfaces;
use crate::rtc::{self, Connection, Restart, RtcError};

/// Commands that may wait. The machine sends a handful a session.
const QUEUE: usize = 64;

/// What a connection reports to the tunnel.
pub(crate) enum Report {
    /// The local description is there; candidates are not in it.
    Described(Box<RtcDescription>),
    /// An ICE restart has made these credentials.
    Restarted(u32, IceCredentials),
    /// This ICE restart did not work.
    RestartFailed(u32),
    /// Something of the connection itself.
    Rtc(rtc::RtcEvent),
    /// It cannot go on.
    Failed(String),
}

/// The commands to a session's task. Dropping it closes the connection.
pub(crate) type Commands = mpsc::Sender<RtcCommand>;

/// Starts the task of a session.
///
/// `running` is dropped when the task has ended.
pub(crate) fn spawn(
    address: Address,
    settings: Rc<Connecting>,
    running: mpsc::Sender<()>,
) -> Commands {
    let (commands, queue) = mpsc::channel(QUEUE);
    tokio::task::spawn_local(async move {
        run(address, settings, queue).await;
        drop(running);
    });
    commands
}

async fn run(address: Address, settings: Rc<Connecting>, mut queue: mpsc::Receiver<RtcCommand>) {
    let mut connection = None;
    while let Some(command) = queue.recv().await {
        let done = match (command, &connection) {
            (RtcCommand::Offer { patience, packet_size }, None) => {
                let settings = settings.patient(patience, packet_size).await;
                offer(&address, &settings).await.map(|made| connection = Some(made))
            }
            (RtcCommand::Answer { remote, patience, packet_size }, None) => {
                let settings = settings.patient(patience, packet_size).await;
                answer(&address, &settings, &remote).await.map(|made| connection = Some(made))
            }
            (command, Some(connection)) => steer(&address, connection, &settings, command).await,
            (_, None) => Ok(()),
        };
        if let Err(error) = done {
            address.report(Report::Failed(error.to_string())).await;
            break;
        }
    }
    if let Some(connection) = connection {
        connection.close().await;
    }
}

/// What all connections of a tunnel have in common.
pub(crate) struct Connecting {
    pub(crate) rtc: rtc::Settings,
    /// Name of our interface: its addresses are no way to reach us.
    pub(crate) interface: String,
    /// Which interfaces of the machine are used.
    pub(crate) interfaces: Interfaces,
    /// Prefixes of our interface; they change with the configuration.
    pub(crate) prefixes: RefCell<Vec<IpNet>>,
}

impl Connecting {
    /// The settings with the machine's addresses as they are now.
    async fn now(&self) -> rtc::Settings {
        let local_addresses = self.addresses().await.unwrap_or_default();
        if let Some(port) = &self.rtc.port {
            port.keep(&local_addresses);
        }
        rtc::Settings { local_addresses, ..self.rtc.clone() }
    }

    /// The same for a connection with packets of this size, whose other side may take its time: people carry the
    /// signaling.
    async fn patient(&self, patience: Option<Duration>, packet_size: u16) -> rtc::Settings {
        let now = self.now().await;
        let patience = patience.unwrap_or_default().max(now.patience);
        rtc::Settings { patience, sctp_mtu: packet_size, ..now }
    }

    /// The machine's addresses that others may reach; `None` when they cannot be read.
    pub(crate) async fn addresses(&self) -> Option<Vec<IpAddr>> {
        let own = [self.interface.as_str()];
        let prefixes = self.prefixes.borrow().clone();
        match foreign_prefixes(&own, &self.interfaces).await {
            Ok(foreign) => self.rtc.foreign.set(foreign),
            Err(error) => warn!("the machine's routes could not be read: {error}"),
        }
        match local_addresses(&own, &self.interfaces, &prefixes).await {
            Ok(found) => Some(found.into_iter().map(|found| found.ip).collect()),
            Err(error) => {
                warn!("the machine's addresses could not be read: {error}");
                None
            }
        }
    }
}

async fn offer(address: &Address, settings: &rtc::Settings) -> Result<Connection, RtcError> {
    let (connection, local) = Connection::offer(settings, address.sink()).await?;
    address.report(Report::Described(Box::new(local))).await;
    Ok(connection)
}

async fn answer(
    address: &Address,
    settings: &rtc::Settings,
    remote: &RtcDescription,
) -> Result<Connection, RtcError> {
    let (connection, local) = Connection::answer(settings, remote, address.sink()).await?;
    address.report(Report::Described(Box::new(local))).await;
    Ok(connection)
}

async fn steer(
    address: &Address,
    connection: &Connection,
    settings: &Connecting,
    command: RtcCommand,
) -> Result<(), RtcError> {
    match command {
        RtcCommand::AcceptAnswer(remote) => connection.accept_answer(&remote).await,
        RtcCommand::AddCandidates { generation, candidates } => {
            // Of a generation that is over, or for a connection that failed to restart: no loss.
            if let Err(error) = connection.add_candidates(generation, &candidates).await {
                debug!("candidates not taken: {error}");
            }
            Ok(())
        }
        RtcCommand::BeginRestart { generation } => {
            connection.set_local_addresses(&settings.now().await.local_addresses);
            let begun = connection.restart_ice().await.map(|(begun, credentials)| {
                (begun == generation).then_some(Report::Restarted(generation, credentials))
            });
            report_restart(address, generation, begun).await;
            Ok(())
        }
        RtcCommand::AnswerRestart { generation, credentials }
        | RtcCommand::FinishRestart { generation, credentials } => {
            connection.set_local_addresses(&settings.now().await.local_addresses);
            let followed =
                connection.remote_restart(generation, &credentials).await.map(|how| match how {
                    Restart::Answer(ours) => Some(Report::Restarted(generation, ours)),
                    Restart::Complete => None,
                });
            report_restart(address, generation, followed).await;
            Ok(())
        }
        RtcCommand::Offer { .. } | RtcCommand::Answer { .. } | RtcCommand::Close => Ok(()),
    }
}

/// A restart that fails is not the end: a new session is sought beside it.
async fn report_restart(
    address: &Address,
    generation: u32,
    outcome: Result<Option<Report>, RtcError>,
) {
    match outcome {
        Ok(Some(report)) => address.report(report).await,
        Ok(None) => {}
        Err(error) => {
            debug!("ICE restart: {error}");
            address.report(Report::RestartFailed(generation)).await;
        }
    }
}
