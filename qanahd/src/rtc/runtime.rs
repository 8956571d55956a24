//! The runtime that `webrtc` runs on: the current tokio runtime, with sockets and names of ours.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::AbortHandle;
use webrtc::runtime::{
    AsyncInterval, AsyncTcpListener, AsyncTcpStream, AsyncUdpSocket, JoinHandle, Runtime,
};

use super::Settings;
use super::admission::Admission;
use super::health::Health;
use super::names::Names;
use super::port::Port;
use super::ported::PortedSocket;
use super::progress::Progress;
use super::resolve::Resolver;
use super::socket::{BatchingSocket, Links};
use super::turn::placeholder;
use super::turn::streams::Streams;

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One runtime a connection, so that its tasks can be ended with it.
pub(super) struct DriverRuntime {
    resolver: Resolver,
    fw_mark: Option<u32>,
    streams: Streams,
    health: Health,
    admission: Admission,
    /// The tunnel's one port, and how the connection is called there.
    port: Option<(Port, Names)>,
    progress: Progress,
    /// Called when the driver has ended, for whatever reason, a panic included.
    on_exit: Arc<dyn Fn() + Send + Sync>,
    tasks: Mutex<Vec<AbortHandle>>,
    is_eager: AtomicBool,
    waits: AtomicU32,
}

/// Passes of the driver's loop that follow each other without waiting while it is eager.
const EAGER_PASSES: u32 = 4;

impl DriverRuntime {
    pub(super) fn new(
        settings: &Settings,
        streams: Streams,
        admission: Admission,
        names: &Names,
        on_exit: Arc<dyn Fn() + Send + Sync>,
    ) -> Self {
        Self {
            resolver: settings.resolver.clone(),
            fw_mark: settings.fw_mark,
            streams,
            health: settings.health.clone(),
            admission,
            port: settings.port.clone().map(|port| (port, names.clone())),
            progress: settings.progress.clone(),
            on_exit,
            tasks: Mutex::default(),
            is_eager: AtomicBool::new(true),
            waits: AtomicU32::new(0),
        }
    }

    /// Makes the driver go round several times before it waits.
    ///
    /// Its loop writes first, and then handles what makes it write: the first DTLS flight after ICE has chosen a
    /// pair, or a packet that goes through a TURN server (three turns from packet to answer), lies there until
    /// something else happens, which is ICE's timer of 200 ms. So while a connection is made, and on a relayed
    /// path, each wait is preceded by some that end at once.
    pub(super) fn set_eager(&self, is_eager: bool) {
        self.is_eager.store(is_eager, Ordering::Relaxed);
    }

    /// Runs a task that ends with the connection.
    pub(super) fn adopt(&self, future: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        let handle = tokio::spawn(future).abort_handle();
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.retain(|task| !task.is_finished());
        tasks.push(handle.clone());
        handle
    }

    /// Ends all tasks, and with them all sockets.
    pub(super) fn abort_all(&self) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        for task in tasks.drain(..) {
            task.abort();
        }
    }
}

impl std::fmt::Debug for DriverRuntime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DriverRuntime").finish_non_exhaustive()
    }
}

/// Calls its function when dropped: that is how a panic in the driver is seen.
struct OnDrop(Arc<dyn Fn() + Send + Sync>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        (self.0)();
    }
}

struct Task(AbortHandle);

impl JoinHandle for Task {
    // Tokio's tasks run on by themselves.
    fn detach(&self) {}

    fn abort(&self) {
        self.0.abort();
    }

    fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

struct Ticks(tokio::time::Interval);

impl AsyncInterval for Ticks {
    fn tick(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.0.tick().await;
        })
    }
}

fn no_tcp() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "ICE over TCP is not used")
}

impl Runtime for DriverRuntime {
    fn spawn(&self, future: BoxFuture<'static, ()>) -> Box<dyn JoinHandle> {
        let exit = OnDrop(Arc::clone(&self.on_exit));
        Box::new(Task(self.adopt(async move {
            let _exit = exit;
            future.await;
        })))
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let links = |streams| Links {
            resolver: self.resolver.clone(),
            streams,
            health: self.health.clone(),
            admission: self.admission.clone(),
            progress: self.progress.clone(),
        };
        let own = BatchingSocket::new(socket, self.fw_mark, links(self.streams.for_socket()))?;
        let Some((port, names)) = &self.port else {
            return Ok(Arc::new(own));
        };
        let ip = own.local_addr()?.ip();
        match port.socket(ip, self.fw_mark) {
            Ok(socket) => Ok(Arc::new(PortedSocket::new(own, socket, names, links(None))?)),
            Err(error) => {
                // Another port is better than none.
                tracing::warn!(%error, %ip, "ListenPort cannot be used, another port is");
                Ok(Arc::new(own))
            }
        }
    }

    fn wrap_tcp_listener(
        &self,
        _listener: std::net::TcpListener,
    ) -> io::Result<Arc<dyn AsyncTcpListener>> {
        Err(no_tcp())
    }

    fn connect_tcp<'a>(
        &'a self,
        _remote: SocketAddr,
    ) -> BoxFuture<'a, io::Result<Arc<dyn AsyncTcpStream>>> {
        Box::pin(async { Err(no_tcp()) })
    }

    fn resolve_host<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        let found = match placeholder::addresses(host) {
            Some(addresses) => Ok(addresses),
            None => self.resolver.addresses(host),
        };
        if let Ok(addresses) = &found {
            self.health.learn(host, addresses);
        }
        Box::pin(std::future::ready(found))
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        if self.is_eager.load(Ordering::Relaxed)
            && !self.waits.fetch_add(1, Ordering::Relaxed).is_multiple_of(EAGER_PASSES)
        {
            return Box::pin(std::future::ready(()));
        }
        Box::pin(tokio::time::sleep(duration))
    }

    fn interval(&self, period: Duration) -> Box<dyn AsyncInterval> {
        Box::new(Ticks(tokio::time::interval(period)))
    }

    /// Never called by `webrtc` itself.
    fn block_on(&self, future: Pin<Box<dyn Future<Output = ()> + '_>>) {
        match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(future),
            Err(error) => tracing::error!(%error, "no runtime to block on"),
        }
    }

    /// Only `send` and `try_send` yield, now and then, to let the driver run. Here they must not, or a
    /// sender that cannot wait could not tell "sent" from "full" (see `channel`); whoever sends much lets others
    /// run by itself, and the send buffer's limit is the stop.
    fn yield_now(&self) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }

    fn name(&self) -> &'static str {
        "qanah"
    }
}
