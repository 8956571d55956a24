//! What a daemon that was killed leaves behind: nothing that needs cleaning.
//!
//! The TUN device is not persistent. When its last descriptor closes, which the kernel does for
//! a process however it ends, the interface goes, and with it every address and route on it.
//! Nothing else of the machine is changed by a plan (a later back end that does, such as one for
//! DNS, has to note what to undo). A start after `kill -9` is therefore a plain start, and an
//! interface of the tunnel's name that *is* there belongs to somebody else: it is refused, never
//! deleted. The stale control socket is the control server's to replace.
//!
//! No code is needed for this; the test below holds it true.

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read};
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};

    use qanah_core::plan::{Step, plan};

    use super::super::netlink::bring_up;
    use super::super::query::{connect, find_link};
    use super::super::testing::{block_on, in_namespace, require_root, routes, until};

    /// Set for the process that is killed; it inherits the namespace of the test that starts it.
    const HOLDER: &str = "QANAH_TEST_HOLDS_A_TUNNEL";

    fn steps() -> Vec<Step> {
        let nets = |texts: [&str; 2]| texts.map(|text| text.parse().unwrap());
        let addresses = nets(["10.9.0.1/24", "fd00:9::1/64"]);
        plan("killed", &addresses, 1400, nets(["10.77.0.0/16", "fd00:77::/48"])).unwrap()
    }

    /// The process that is killed. Only ever run by the test below, in that test's namespace.
    #[test]
    #[ignore = "run by a_killed_process_leaves_nothing"]
    fn hold_a_tunnel() {
        assert!(std::env::var_os(HOLDER).is_some(), "run a_killed_process_leaves_nothing instead");
        require_root();
        block_on(async {
            let _held = bring_up(&steps()).await.unwrap();
            println!("\nthe tunnel is up");
            // Until the end of the parent, should it fail to kill.
            tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()))
                .await
                .unwrap()
                .unwrap();
        });
    }

    #[test]
    fn a_killed_process_leaves_nothing() {
        in_namespace(|| async {
            let netlink = connect().unwrap();
            let before = routes(&netlink).await.len();
            for _ in 0..2 {
                let mut holder = Command::new(std::env::current_exe().unwrap())
                    .args(["--exact", "platform::cleanup::tests::hold_a_tunnel"])
                    .args(["--ignored", "--nocapture"])
                    .env(HOLDER, "1")
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .spawn()
                    .unwrap();
                let output = BufReader::new(holder.stdout.take().unwrap());
                let up = output.lines().any(|line| line.unwrap() == "the tunnel is up");
                assert!(up, "the process to be killed did not bring its tunnel up");
                assert!(find_link(&netlink, "killed").await.unwrap().is_some());
                assert!(routes(&netlink).await.len() > before);

                holder.kill().unwrap();
                assert_eq!(holder.wait().unwrap().signal(), Some(9));
                until("the interface is gone", async || {
                    find_link(&netlink, "killed").await.unwrap().is_none()
                })
                .await;
                until("the routes are gone", async || routes(&netlink).await.len() == before).await;
            }
            bring_up(&steps()).await.expect("a plain start").undo().await.unwrap();
        });
    }
}
