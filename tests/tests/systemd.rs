//! The package and its units, on machines that boot a real systemd.

use anyhow::{Context, Result, anyhow, ensure};
use qanah_tests::lab::{Lab, in_lab};
use qanah_tests::wait::{always, eventually, eventually_timed, secs};
use qanah_tests::wedge::Wedge;
use qanah_tests::{Conf, Image, Machine};

/// How long a machine that is busy with others may take for what is quick.
const SOON: std::time::Duration = secs(30);

/// A machine with the package, and with the configuration where its user has it.
fn installed(lab: &Lab, image: &Image, number: usize) -> Result<Machine> {
    prepared(started(lab, image, number)?, image)
}

/// A machine that boots, and its configuration.
fn started(lab: &Lab, image: &Image, number: usize) -> Result<(Machine, Conf)> {
    let conf = lab.mesh().into_iter().nth(number - 1).context("no such node")?;
    Ok((Machine::start(lab, lab.node(number)?.place(), image, &conf.name)?, conf))
}

fn prepared((mut machine, conf): (Machine, Conf), image: &Image) -> Result<Machine> {
    machine.wait()?;
    machine.know_public_servers()?;
    machine.install(&image.deb(false)?)?;
    machine.run("usermod -aG qanah ann")?;
    machine.write_as("ann", &format!("/home/ann/{}.conf", conf.name), &conf.to_string())?;
    Ok(machine)
}

/// The second to fourth of the four lines, by somebody with sudo. The first is `installed`.
fn set_up(machine: &Machine) -> Result<()> {
    let name = machine.name();
    let lines = format!(
        "sudo install -m 600 {name}.conf /etc/qanah/
         sudo systemctl enable --now qanahd@{name}
         qanahctl status"
    );
    let said = machine.try_as_user("ann", &lines)?;
    ensure!(matches!(said.code, 0 | 3), "{said:?}");
    ensure!(said.out.contains(&format!("tunnel {name}  up")), "{said:?}");
    Ok(())
}

fn all_connected(machine: &Machine) -> Result<()> {
    eventually(&format!("all peers of {} are connected", machine.name()), secs(60), || {
        machine.as_user("ann", "qanahctl status").map(drop)
    })
}

fn pings(machine: &Machine, number: usize) -> Result<()> {
    let line = format!("ping -c 1 -W 2 10.0.0.{number} && ping -c 1 -W 2 fd00::{number}");
    eventually(&format!("{} reaches peer{number}", machine.name()), SOON, || {
        machine.run(&line).map(drop)
    })
}

/// Two machines that are connected.
fn pair(lab: &Lab, image: &Image) -> Result<[Machine; 2]> {
    // Both at once: most of it is waiting.
    let (first, second) = (started(lab, image, 1)?, started(lab, image, 2)?);
    let machines = std::thread::scope(|scope| {
        let second = scope.spawn(|| prepared(second, image));
        let first = prepared(first, image);
        let second = second.join().map_err(|_| anyhow!("the thread of a machine panicked"))?;
        anyhow::Ok([first?, second?])
    })?;
    machines.iter().try_for_each(set_up)?;
    machines.iter().try_for_each(all_connected)?;
    pings(&machines[0], 2)?;
    Ok(machines)
}

/// Runs a test with an image, or says that there is none.
fn with_image(nodes: usize, test: impl FnOnce(&Lab, &Image) -> Result<()>) -> Result<()> {
    let Some(image) = Image::find()? else {
        return Ok(());
    };
    in_lab(nodes, |lab| test(lab, &image))
}

#[test]
fn four_lines_then_reboot_upgrade_reload_and_removal() -> Result<()> {
    with_image(2, |lab, image| {
        let _servers = lab.public_servers()?;
        let [mut one, two] = pair(lab, image)?;
        what_the_manager_shows(&one)?;
        what_the_journal_has(&one)?;
        ready_means_that_addresses_can_be_used(&one)?;
        reloads(lab, &one)?;

        one.reboot()?;
        all_connected(&one)?;
        pings(&one, 2)?;
        pings(&two, 1)?;

        upgrade(&one, image)?;
        stops(&one)?;
        journal_has(&one, "TUNNEL=peer1 EVENT=down", "f14b1d15521f469dbe0c2ba44f5132ba")?;
        let disconnected = "13ee12c32e7d45cbbc3d40e4920328fe";
        journal_has(&two, "TUNNEL=peer2 PEER=peer1 EVENT=disconnected", disconnected)?;
        removal(&one, image)
    })
}

fn what_the_manager_shows(machine: &Machine) -> Result<()> {
    let unit = "qanahd@peer1";
    eventually("the number of connected peers in the status", SOON, || {
        let text = machine.property(unit, "StatusText")?;
        ensure!(text == "peer1: 1 of 1 peers connected", "{text}");
        Ok(())
    })?;
    let said = machine.run("systemd-analyze verify --man=no qanahd@peer1.service 2>&1")?;
    ensure!(said.is_empty(), "{said}");
    let score = machine.run(&format!("systemd-analyze security --no-pager {unit} | tail -n 1"))?;
    ensure!(score.contains(": 1.8 OK"), "{score}");
    // What the kernel says of the process, not what the unit asks for.
    let pid = machine.property(unit, "MainPID")?;
    let status = machine.run(&format!("cat /proc/{pid}/status"))?;
    for line in
        ["CapBnd:\t0000000000001000", "CapEff:\t0000000000001000", "NoNewPrivs:\t1", "Seccomp:\t2"]
    {
        ensure!(status.contains(line), "no {line:?} in {status}");
    }
    let sockets = machine.run("stat -c '%A %U %G %n' /run/qanah /run/qanah/peer1.sock")?;
    ensure!(sockets.contains("drwxr-s--- root qanah /run/qanah\n"), "{sockets}");
    ensure!(sockets.contains("srw-rw---- root qanah /run/qanah/peer1.sock"), "{sockets}");
    // Neither the memory nor the environment of the daemon is anybody's.
    for file in ["environ", "mem", "maps"] {
        let said = machine.try_as_user("ann", &format!("cat /proc/{pid}/{file}"))?;
        ensure!(said.code != 0, "{file} can be read: {said:?}");
    }
    Ok(())
}

/// Whether the journal has a line about an event with these fields, `FIELD=VALUE` each.
fn journal_has(machine: &Machine, fields: &str, id: &str) -> Result<()> {
    let line = format!("journalctl -o export --no-pager {fields} MESSAGE_ID={id}");
    eventually(&format!("{fields} in the journal"), SOON, || {
        let text = machine.run(&line)?;
        ensure!(text.contains("SYSLOG_IDENTIFIER=qanahd"), "nothing");
        Ok(())
    })
}

fn what_the_journal_has(machine: &Machine) -> Result<()> {
    journal_has(machine, "TUNNEL=peer1 EVENT=up", "f9b3706f05314937b4f92deb159e716b")?;
    let connected = "6285384446b64f2cb8b73a7b6ad0327a";
    journal_has(machine, "TUNNEL=peer1 PEER=peer2 EVENT=connected", connected)?;
    let private = machine.run("sed -n 's/^PrivateKey = //p' /etc/qanah/peer1.conf")?;
    let all = machine.run("journalctl --no-pager -o export -u qanahd@peer1")?;
    ensure!(!all.contains(private.trim()), "the private key is in the journal");
    // A member asks for what is root's alone.
    machine.run("systemctl start qanahd")?;
    let said = machine.try_as_user("ann", "qanahctl up --lazy ghost")?;
    ensure!(said.code == 5, "{said:?}");
    let said = machine.try_as_user("ann", "qanahctl up ~/peer1.conf")?;
    ensure!(said.code == 5, "{said:?}");
    let ann = machine.run("id -u ann")?;
    let fields = format!("EVENT=denied UID={}", ann.trim());
    journal_has(machine, &fields, "34a42f93279d4d9ebf5c0c6a7aa18fdb")?;
    machine.run("systemctl stop qanahd").map(drop)
}

/// A socket of systemd's own, without `FreeBind=`, is bound at the very moment when the tunnel is ready.
fn ready_means_that_addresses_can_be_used(machine: &Machine) -> Result<()> {
    machine.write(
        "/etc/systemd/system/bound.socket",
        "[Unit]\nAfter=qanahd@peer1.service\nRequires=qanahd@peer1.service\n\
         [Socket]\nListenStream=10.0.0.1:7777\nListenStream=[fd00::1]:7777\nAccept=no\n",
    )?;
    machine.write("/etc/systemd/system/bound.service", "[Service]\nExecStart=/bin/true\n")?;
    machine.run("systemctl daemon-reload")?;
    for _ in 0..5 {
        machine.run("systemctl stop bound.socket qanahd@peer1; systemctl start bound.socket")?;
    }
    machine.run("systemctl stop bound.socket; systemctl is-active qanahd@peer1")?;
    all_connected(machine)
}

fn reloads(lab: &Lab, machine: &Machine) -> Result<()> {
    let unit = "qanahd@peer1";
    let pid = machine.property(unit, "MainPID")?;
    let mut conf: Conf = lab.mesh().into_iter().next().context("no nodes")?;
    conf.addresses.push("10.77.0.1/24".to_owned());
    machine.write("/etc/qanah/peer1.conf", &conf.to_string())?;
    machine.run(&format!("systemctl reload {unit}"))?;
    machine.run("ip -o addr show peer1 | grep -F 10.77.0.1/24")?;
    // A mistake changes nothing, and is told.
    machine.write("/etc/qanah/peer1.conf", "[Interface]\nPrivateKey = nonsense\n")?;
    let said = machine.try_run(&format!("systemctl reload {unit}"))?;
    ensure!(said.code != 0, "{said:?}");
    let journal = machine.run(&format!("journalctl --no-pager -u {unit} -n 20"))?;
    ensure!(journal.contains("peer1.conf:2: PrivateKey"), "{journal}");
    machine.run("ip -o addr show peer1 | grep -F 10.77.0.1/24")?;
    // Replaced all the time while it is read: a whole one or the other one is in force.
    conf.addresses.pop();
    machine.write("/root/short.conf", &conf.to_string())?;
    conf.addresses.push("10.77.0.1/24".to_owned());
    machine.write("/root/long.conf", &conf.to_string())?;
    machine.run(&format!(
        "(for i in $(seq 60); do for c in short long; do
             install -m 600 /root/$c.conf /etc/qanah/peer1.conf; done; done) &
         for i in $(seq 15); do systemctl reload {unit} || true; done; wait
         systemctl reload {unit}; ip -o addr show peer1 | grep -F 10.77.0.1/24"
    ))?;
    machine.run("install -m 600 /root/short.conf /etc/qanah/peer1.conf")?;
    machine.run(&format!("systemctl reload {unit}"))?;
    machine.run("! ip -o addr show peer1 | grep -F 10.77.0.1/24")?;
    ensure!(machine.property(unit, "MainPID")? == pid, "the daemon was restarted");
    ensure!(machine.property(unit, "ActiveState")? == "active", "not active");
    machine.as_user("ann", "qanahctl status").map(drop)
}

fn upgrade(machine: &Machine, image: &Image) -> Result<()> {
    let pid = machine.property("qanahd@peer1", "MainPID")?;
    // The daemon of many remembers what is up, too, and keeps none of it when it is stopped.
    machine.write(
        "/etc/qanah/extra.conf",
        &format!(
            "[Interface]\nPrivateKey = {}\nAddress = 10.99.0.1/24\n",
            qanah_tests::conf::Identity::generate().private
        ),
    )?;
    machine.run("systemctl start qanahd")?;
    machine.as_user("ann", "qanahctl up extra")?;
    let text = machine.install(&image.deb(true)?)?;
    ensure!(text.contains("+next"), "{text}");
    ensure!(machine.property("qanahd@peer1", "MainPID")? != pid, "the old program still runs");
    ensure!(machine.property("qanahd@peer1", "NRestarts")? == "0", "it was not restarted orderly");
    all_connected(machine)?;
    machine.run("ip -o addr show extra | grep -F 10.99.0.1/24")?;
    machine.run("systemctl kill --kill-whom=main --signal=KILL qanahd")?;
    eventually("the daemon of many is there again, with its tunnel", secs(60), || {
        machine.run("ip -o addr show extra | grep -F 10.99.0.1/24")?;
        machine.as_user("ann", "qanahctl status extra").map(drop)
    })?;
    machine.run("systemctl reload qanahd")?;
    machine.run("systemctl restart qanahd && ip -o addr show extra | grep -F 10.99.0.1/24")?;
    machine.run("systemctl stop qanahd; systemctl start qanahd; ! ip link show extra")?;
    machine.run("systemctl stop qanahd").map(drop)
}

fn stops(machine: &Machine) -> Result<()> {
    let (_, took) = eventually_timed("a stop", secs(20), || {
        machine.run("systemctl stop qanahd@peer1").map(drop)
    })?;
    ensure!(took < secs(5), "systemctl stop took {took:?}");
    let result = machine.property("qanahd@peer1", "Result")?;
    ensure!(result == "success", "the stop was no success: {result}");
    machine.run("! ip link show peer1 2>/dev/null && ! test -e /run/qanah/peer1.sock")?;
    machine.run("systemctl start qanahd@peer1")?;
    all_connected(machine)
}

fn removal(machine: &Machine, image: &Image) -> Result<()> {
    // While it runs.
    machine.run("apt-get remove --yes qanah 2>&1")?;
    machine.run("! ip link show peer1 2>/dev/null && ! test -e /run/qanah")?;
    machine.run("test -e /etc/qanah/peer1.conf && ! test -e /usr/sbin/qanahd")?;
    machine.run("! systemctl cat qanahd@peer1 2>/dev/null")?;
    let failed = machine.run("systemctl --failed --plain --no-legend")?;
    ensure!(failed.is_empty(), "{failed}");
    // Who comes back finds everything as it was, and who purges loses nothing that cannot be had again.
    machine.install(&image.deb(false)?)?;
    machine.run("systemctl is-enabled qanahd@peer1; systemctl start qanahd@peer1")?;
    all_connected(machine)?;
    let said = machine.run("apt-get purge --yes qanah 2>&1")?;
    ensure!(said.contains("/etc/qanah is left"), "{said}");
    machine.run("test -e /etc/qanah/peer1.conf")?;
    machine.run("! find /etc/systemd/system -name 'qanahd*' | grep .").map(drop)
}

#[test]
fn the_plain_installer_does_the_same_and_undoes_it() -> Result<()> {
    with_image(2, |lab, image| {
        let _servers = lab.public_servers()?;
        let (mut one, conf) = started(lab, image, 1)?;
        let two = prepared(started(lab, image, 2)?, image)?;
        one.wait()?;
        one.know_public_servers()?;
        one.write_as("ann", "/home/ann/peer1.conf", &conf.to_string())?;
        one.run("find / -xdev -path /proc -prune -o -name '*qanah*' -print > /root/before")?;
        let tree = image.plain();
        one.run(&format!("cp -r {} /home/ann/tree; chown -R ann: /home/ann/tree", tree.display()))?;
        one.as_user("ann", "cd tree && sudo packaging/install")?;
        one.run("usermod -aG qanah ann")?;
        set_up(&one)?;
        set_up(&two)?;
        all_connected(&one)?;
        one.run("systemctl is-enabled qanahd@peer1; man -w qanahd 2>/dev/null || test -e /usr/local/share/man/man8/qanahd.8")?;
        one.as_user("ann", "cd tree && sudo packaging/install --uninstall")?;
        one.run("! ip link show peer1 2>/dev/null && test -e /etc/qanah/peer1.conf")?;
        one.run("systemctl daemon-reload; ! systemctl cat qanahd@peer1 2>/dev/null")?;
        let left = one.run(
            "rm -rf /etc/qanah /home/ann/tree; find / -xdev -path /proc -prune -o -path /sys -prune -o -name '*qanah*' -print |
                 grep -vxFf /root/before || true",
        )?;
        ensure!(left.is_empty(), "{left}");
        Ok(())
    })
}

#[test]
fn what_hangs_or_crashes_is_started_again_for_ever_and_not_too_often() -> Result<()> {
    with_image(2, |lab, image| {
        let _servers = lab.public_servers()?;
        let [one, _two] = pair(lab, image)?;
        let unit = "qanahd@peer1";
        ensure!(one.property(unit, "StartLimitIntervalUSec")? == "0", "it would give up");
        ensure!(one.property(unit, "RestartUSec")? == "5s", "another pause");
        one.write(
            "/etc/systemd/system/qanahd@.service.d/quick.conf",
            "[Service]\nWatchdogSec=2s\nRestartSec=100ms\n",
        )?;
        one.run(&format!("systemctl daemon-reload; systemctl restart {unit}"))?;
        all_connected(&one)?;
        let restarts = |count: usize| {
            eventually(&format!("restart {count}"), secs(60), || {
                let found = one.property(unit, "NRestarts")?;
                ensure!(found == count.to_string(), "{found} restarts");
                Ok(())
            })
        };
        // Fed while all is well.
        always("no restart", secs(5), || {
            ensure!(one.property(unit, "NRestarts")? == "0", "it was restarted");
            Ok(())
        })?;
        // The thread of the data path, then that of the control loop; the rest of the daemon goes on.
        for (thread, count) in [("tunnel", 1), ("qanahd", 2)] {
            let wedge = Wedge::thread(one.main_process(unit)?, thread)?;
            restarts(count)?;
            drop(wedge);
            all_connected(&one)?;
            pings(&one, 2)?;
        }
        let journal = one.run(&format!("journalctl --no-pager -u {unit}"))?;
        ensure!(journal.matches("Watchdog timeout").count() == 2, "{journal}");
        ensure!(journal.contains("no progress in the control loop or in a tunnel"), "{journal}");
        ensure!(!journal.contains("Processes still around"), "{journal}");

        // A crash, then a configuration that no start can use: more often than systemd would by itself.
        one.run(&format!("systemctl kill --kill-whom=main --signal=ABRT {unit}"))?;
        restarts(3)?;
        all_connected(&one)?;
        one.run(
            "mv /etc/qanah/peer1.conf /root/; echo nonsense > /etc/qanah/peer1.conf
                 chmod 600 /etc/qanah/peer1.conf",
        )?;
        let said = one.try_run(&format!("systemctl restart {unit}"))?;
        ensure!(said.code != 0, "{said:?}");
        eventually("many restarts", secs(60), || {
            let count: usize = one.property(unit, "NRestarts")?.parse()?;
            ensure!(count > 10, "only {count}");
            Ok(())
        })?;
        one.run("mv /root/peer1.conf /etc/qanah/")?;
        all_connected(&one)?;
        pings(&one, 2)
    })
}

#[test]
fn strangers_links_open_files_and_odd_names() -> Result<()> {
    with_image(2, |lab, image| {
        let _servers = lab.public_servers()?;
        let one = installed(lab, image, 1)?;
        set_up(&one)?;
        // Somebody who is not in the group is told so, and what to do.
        let said = one.try_as_user("bob", "qanahctl status")?;
        ensure!(said.code == 5 && said.err.contains("group"), "{said:?}");
        let said = one.try_as_user("bob", "cat /etc/qanah/peer1.conf; ls /etc/qanah /run/qanah")?;
        ensure!(said.out.is_empty() && said.code != 0, "{said:?}");

        // What is not root's own file alone does not start, and says why.
        let refused = |name: &str, word: &str| -> Result<()> {
            let said = one.try_run(&format!("systemctl start 'qanahd@{name}'"))?;
            ensure!(said.code != 0, "{name} has started");
            let journal = one.run(&format!("journalctl --no-pager -u 'qanahd@{name}'"))?;
            ensure!(journal.contains(word), "{name}: no word of {word}: {journal}");
            one.run(&format!("systemctl stop 'qanahd@{name}'; systemctl reset-failed")).map(drop)
        };
        one.run("ln -s /home/ann/peer1.conf /etc/qanah/link.conf")?;
        refused("link", "symbolic link")?;
        one.run("install -m 644 /etc/qanah/peer1.conf /etc/qanah/open.conf")?;
        refused("open", "closed to all others")?;
        one.run("install -m 600 -o ann /etc/qanah/peer1.conf /etc/qanah/anns.conf")?;
        refused("anns", "must belong to root")?;
        refused("missing", "there is no /etc/qanah/missing.conf")?;
        refused("..", "reserved")?;
        refused("qanahd", "reserved")?;
        refused(r"\x2e\x2e\x2f\x2e\x2e\x2fhome\x2fann\x2fpeer1", "only letters, digits")?;
        refused("averyveryverylongname", "at most 15")?;

        // Characters that unit names cannot have, and a dash, which is no slash here.
        let mut conf = lab.mesh().into_iter().next().context("no nodes")?;
        conf.addresses = vec!["10.88.0.1/24".to_owned()];
        for name in ["home-lab", "a+b=c"] {
            one.write(&format!("/etc/qanah/{name}.conf"), &conf.to_string())?;
            let unit = one.run(&format!("systemd-escape --template=qanahd@.service {name}"))?;
            let unit = if name == "home-lab" { "qanahd@home-lab" } else { unit.trim() };
            one.run(&format!("systemctl start '{unit}' && systemctl reload '{unit}'"))?;
            one.run(&format!("ip link show {name} && test -S /run/qanah/{name}.sock"))?;
            one.run(&format!("systemctl stop '{unit}'"))?;
        }
        options_and_secrets(&one)?;
        hooks_run_with_the_drop_in(&one, &conf)
    })
}

fn options_and_secrets(one: &Machine) -> Result<()> {
    one.run(
        "echo QANAH_LAZY=yes > /etc/qanah/qanahd.env
         printf 'QANAH_TURN_URL=turn:172.31.9.254:3478\\nQANAH_TURN_USERNAME=lab\\n' > /etc/qanah/peer1.env
         chmod 600 /etc/qanah/*.env; chmod 644 /etc/qanah/peer1.env
         echo a-lab-password > /etc/qanah/turn-credential; chmod 600 /etc/qanah/turn-credential
         mkdir -p /etc/systemd/system/qanahd@peer1.service.d
         printf '[Service]\\nLoadCredential=turn-credential:/etc/qanah/turn-credential\\n' \
             > /etc/systemd/system/qanahd@peer1.service.d/turn.conf
         systemctl daemon-reload; systemctl restart qanahd@peer1",
    )?;
    let journal = one.run("journalctl --no-pager -u qanahd@peer1 -n 30")?;
    ensure!(journal.contains("/etc/qanah/peer1.env can be read by others"), "{journal}");
    ensure!(!journal.contains("qanahd.env can be"), "{journal}");
    // All three options arrived: with one of them missing it would not have started.
    let pid = one.property("qanahd@peer1", "MainPID")?;
    let seen = one.as_user(
        "bob",
        "ps axwwe -o args; cat /proc/*/cmdline /proc/*/environ 2>/dev/null; true",
    )?;
    ensure!(!seen.contains("a-lab-password"), "the password can be seen");
    let environment = one.run(&format!("tr '\\0' '\\n' < /proc/{pid}/environ"))?;
    ensure!(!environment.contains("a-lab-password"), "the password is in the environment");
    one.run("rm /etc/systemd/system/qanahd@peer1.service.d/turn.conf; systemctl daemon-reload")?;
    let said = one.try_run("systemctl restart qanahd@peer1")?;
    ensure!(said.code != 0, "it started without the credential");
    one.run("rm /etc/qanah/*.env; systemctl restart qanahd@peer1").map(drop)
}

fn hooks_run_with_the_drop_in(one: &Machine, conf: &Conf) -> Result<()> {
    let mut conf = conf.clone();
    conf.extra = [
        "PostUp = sysctl -w net.ipv4.ip_forward=1",
        "PostUp = nft add table inet %i; nft 'add chain inet %i f { type filter hook forward priority 0; }'",
        "PostUp = iptables -A FORWARD -i %i -j ACCEPT",
        "PostUp = iptables-legacy -t mangle -L > /dev/null || iptables-legacy --version",
        "PostUp = ip rule add from 10.88.0.0/24 table 88; ip route add 10.89.0.0/24 dev %i table 88",
        "PreDown = ip rule del from 10.88.0.0/24 table 88",
        "PostDown = iptables -D FORWARD -i %i -j ACCEPT; nft delete table inet %i",
    ]
    .map(str::to_owned)
    .to_vec();
    one.write("/etc/qanah/hooked.conf", &conf.to_string())?;
    let said = one.try_run("systemctl start qanahd@hooked")?;
    ensure!(said.code != 0, "hooks ran without the drop-in");
    let journal = one.run("journalctl --no-pager -u qanahd@hooked")?;
    ensure!(journal.contains("hooks.conf, see qanahd(8)"), "{journal}");
    one.run(
        "sysctl -w net.ipv4.ip_forward=0
         install -D -m 644 /usr/share/qanah/hooks.conf \
             /etc/systemd/system/qanahd@hooked.service.d/hooks.conf
         systemctl daemon-reload; systemctl restart qanahd@hooked || journalctl -u qanahd@hooked -n 40
         systemctl is-active qanahd@hooked",
    )?;
    let score = one.run("systemd-analyze security --no-pager qanahd@hooked | tail -n 1")?;
    ensure!(score.contains(": 2.3 OK"), "{score}");
    one.run(
        "test $(sysctl -n net.ipv4.ip_forward) = 1; nft list table inet hooked
         iptables -S FORWARD | grep -- '-i hooked'; ip rule | grep 'lookup 88'",
    )?;
    one.run("systemctl stop qanahd@hooked")?;
    let result = one.property("qanahd@hooked", "Result")?;
    let journal = one.run("journalctl --no-pager -u qanahd@hooked -n 40")?;
    ensure!(result == "success", "{result}: {journal}");
    one.run(
        "! nft list table inet hooked 2>/dev/null && ! iptables -S FORWARD | grep -- '-i hooked' &&
             ! ip rule | grep 'lookup 88' && ! ip link show hooked 2>/dev/null",
    )
    .context(journal)
    .map(drop)
}
