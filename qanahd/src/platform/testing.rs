//! Network namespaces for tests: nothing here touches the network of the machine.

use std::future::Future;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use futures_util::TryStreamExt;
use nix::sched::{CloneFlags, unshare};
use rtnetlink::packet_route::route::RouteMessage;
use rtnetlink::{Handle, RouteMessageBuilder};

/// How long a test body may take before it counts as hung.
const LIMIT: Duration = Duration::from_secs(30);

/// Run `body` on a thread of its own in a network namespace of its own, on a current-thread
/// runtime. Both end with it. A network namespace belongs to a thread: the rest of the process
/// stays where it is, and threads and processes that `body` starts are in the new one.
pub(crate) fn in_namespace<F, Fut>(body: F)
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = ()>,
{
    require_root();
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET)
            .expect("this test makes a network namespace, which takes CAP_SYS_ADMIN");
        block_on(body());
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Run `body` on a current-thread runtime where the caller is.
pub(crate) fn block_on(body: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    runtime.block_on(local.run_until(async {
        tokio::time::timeout(LIMIT, body).await.expect("the test hung");
    }));
}

/// Fail, and say why, where tests that need namespaces cannot run.
pub(crate) fn require_root() {
    assert!(
        nix::unistd::geteuid().is_root(),
        "this test makes a network namespace of its own and needs root: run the tests as root"
    );
}

/// Wait until `condition` holds, and fail with its name where it never does.
pub(crate) async fn until<F: AsyncFnMut() -> bool>(name: &str, mut condition: F) {
    let wait = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(LIMIT / 3, wait).await.is_ok(), "never came true: {name}");
}

/// All routes of all tables and both families.
pub(crate) async fn routes(netlink: &Handle) -> Vec<RouteMessage> {
    let mut all = Vec::new();
    for family in [
        RouteMessageBuilder::<Ipv4Addr>::new().build(),
        RouteMessageBuilder::<Ipv6Addr>::new().build(),
    ] {
        let dump = netlink.route().get(family).execute();
        all.extend(dump.try_collect::<Vec<_>>().await.unwrap());
    }
    all
}
