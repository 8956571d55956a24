use std::process::Command;

use super::*;

fn parse(line: &str) -> Result<Args, clap::Error> {
    Args::parse_checked(["qanahd"].into_iter().chain(line.split_whitespace()))
}

fn usage_error(line: &str) -> String {
    let error = parse(line).unwrap_err();
    assert_eq!(error.exit_code(), 2, "{line}");
    error.to_string()
}

#[test]
fn the_command_is_well_formed() {
    Args::command().debug_assert();
}

#[test]
fn the_examples_of_the_manual() {
    let args = parse("-c peer1.conf").unwrap();
    assert_eq!(args.config, Some("peer1.conf".into()));
    assert_eq!((args.log_level, args.check), (LogLevel::Info, false));

    let args = parse(
        "--config peer1.conf --stun stun:a:3478 --stun stun:b:19302 --turn-url turn:t:3478 \
         --turn-username u --turn-credential p,q --signal-server mqtt.example.com:1883 --no-relay --lazy --idle-timeout 60 \
         --signal-ca ca.pem --socket /tmp/x.sock --log-level debug --check",
    )
    .unwrap();
    assert_eq!(args.servers.stun, ["stun:a:3478", "stun:b:19302"]);
    assert_eq!(args.servers.turn_url, ["turn:t:3478"]);
    assert_eq!(args.servers.turn_credential.as_deref(), Some("p,q"));
    assert_eq!(args.servers.signal_server, ["mqtt.example.com:1883"]);
    assert_eq!(args.servers.signal_ca, Some("ca.pem".into()));
    assert_eq!(args.socket, Some("/tmp/x.sock".into()));
    assert!(args.servers.no_relay && args.servers.lazy && args.check);
    assert_eq!(args.servers.idle_timeout, Some(60));
    assert_eq!(args.log_level, LogLevel::Debug);
}

#[test]
fn a_secret_takes_the_place_of_a_password() {
    let args = parse("--turn-url turns:t:443 --turn-secret s --turn-ca ca.pem").unwrap();
    assert_eq!(args.servers.turn_secret.as_deref(), Some("s"));
    assert_eq!(args.servers.turn_ca, Some("ca.pem".into()));
    let named = parse("--turn-url turns:t --turn-secret s --turn-username joe").unwrap();
    assert_eq!(named.servers.turn_username.as_deref(), Some("joe"));
    assert!(usage_error("--turn-secret s").contains("belong together"));
    let both = "--turn-url turn:t --turn-secret s --turn-username u --turn-credential p";
    assert!(usage_error(both).contains("takes the place of --turn-credential"));
}

#[test]
fn certificates_and_keys_belong_together() {
    let args = parse("--signal-cert c.pem --signal-key k.pem --proxy http://p:1").unwrap();
    assert_eq!(args.servers.signal_cert, Some("c.pem".into()));
    assert_eq!(args.servers.signal_key, Some("k.pem".into()));
    assert_eq!(args.servers.proxy.as_deref(), Some("http://p:1"));
    for part in ["--signal-cert c.pem", "--signal-key k.pem"] {
        assert!(usage_error(part).contains("belong together"));
    }
}

#[test]
fn the_variables_of_all_programs_name_a_proxy() {
    let read = |given: &[(&str, &str)]| {
        ProxyEnvironment::read(|name| {
            given.iter().find(|(own, _)| *own == name).map(|(_, value)| (*value).to_owned())
        })
    };
    assert_eq!(read(&[]), ProxyEnvironment::default());
    assert_eq!(read(&[("HTTP_PROXY", "a"), ("http_proxy", "b")]), ProxyEnvironment::default());
    let all = [("ALL_PROXY", "a"), ("all_proxy", ""), ("NO_PROXY", "x,y")];
    let found = read(&all);
    assert_eq!(found.proxy, Some(("ALL_PROXY", "a".to_owned())));
    assert_eq!(found.no_proxy, "x,y");
    let https = [&all[..], &[("HTTPS_PROXY", "c"), ("https_proxy", "d")]].concat();
    assert_eq!(read(&https).proxy, Some(("https_proxy", "d".to_owned())));
    assert!(!format!("{:?}", read(&[("HTTPS_PROXY", "hunter2")])).contains("hunter2"));
}

#[test]
fn usage_errors_say_what_to_do() {
    assert!(usage_error("--check").contains("--config FILE"));
    for part in ["--turn-url turn:t", "--turn-username u", "--turn-url turn:t --turn-credential p"]
    {
        assert!(usage_error(&format!("-c x.conf {part}")).contains("belong together"));
    }
    assert!(usage_error("-c x.conf --log-level loud").contains("possible values"));
    assert!(usage_error("-c x.conf --frobnicate").contains("--frobnicate"));
    for seconds in ["0", "86401", "soon"] {
        assert!(
            usage_error(&format!("--lazy --idle-timeout {seconds}")).contains("--idle-timeout")
        );
    }
}

#[test]
fn without_a_configuration_many_tunnels_are_served() {
    let args = parse("--up peer1 --up peer2").unwrap();
    let names: Vec<_> = args.up.iter().map(ToString::to_string).collect();
    assert_eq!((args.config, names), (None, vec!["peer1".to_owned(), "peer2".to_owned()]));
    assert!(parse("").unwrap().up.is_empty());
    assert!(usage_error("--config x.conf --up peer1").contains("cannot be used with"));
    assert!(usage_error("--up ../x").contains("--up"));
}

#[test]
fn what_moved_says_where_to() {
    for line in ["offer", "offer --config peer1.conf --peer x", "offer --help"] {
        assert!(usage_error(line).contains("`qanahctl offer`"), "{line}");
    }
    assert!(usage_error("answer offer.txt").contains("`qanahctl answer`"));
}

#[test]
fn help_and_version_are_no_errors() {
    for line in ["--help", "--version", "-V"] {
        assert_eq!(parse(line).unwrap_err().exit_code(), 0);
    }
    let help = parse("--help").unwrap_err().to_string();
    assert!(help.starts_with("Runs WireGuard configurations"));
    assert!(help.contains("QANAH_TURN_CREDENTIAL") && !help.contains("offer"));
}

#[test]
fn lists_split_at_commas_and_spaces() {
    let parts: Vec<_> = split(" stun:a,stun:b  stun:c,, ").collect();
    assert_eq!(parts, ["stun:a", "stun:b", "stun:c"]);
}

/// The environment belongs to a process, so this runs itself in one with its own.
#[test]
fn the_environment_stands_in_for_options() {
    const CHILD: &str = "QANAH_TEST_CHILD";
    if std::env::var_os(CHILD).is_some() {
        let args = parse("-c x.conf --signal-server broker:1883").unwrap();
        assert_eq!(args.servers.stun, ["stun:a:1", "stun:b:2", "stun:c:3"]);
        assert_eq!(args.servers.turn_url, ["turn:t:1"]);
        assert_eq!(args.servers.turn_username.as_deref(), Some("user"));
        assert_eq!(args.servers.turn_credential.as_deref(), Some("se,cr et"));
        // The command line wins over the environment.
        assert_eq!(args.servers.signal_server, ["broker:1883"]);
        assert_eq!(args.servers.signal_ca, None);
        assert!(!args.servers.no_relay && args.servers.lazy);
        assert_eq!(args.servers.idle_timeout, Some(60));
        let help = parse("--help").unwrap_err().to_string();
        assert!(!help.contains("se,cr et"));
        return;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "args::tests::the_environment_stands_in_for_options"])
        .env(CHILD, "1")
        .env("QANAH_STUN", "stun:a:1, stun:b:2 stun:c:3")
        .env("QANAH_TURN_URL", "turn:t:1")
        .env("QANAH_TURN_USERNAME", "user")
        .env("QANAH_TURN_CREDENTIAL", "se,cr et")
        .env("QANAH_SIGNAL_SERVER", "ignored:1")
        .env("QANAH_SIGNAL_CA", "")
        .env("QANAH_NO_RELAY", "false")
        .env("QANAH_LAZY", "yes")
        .env("QANAH_IDLE_TIMEOUT", "60")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
fn one_tunnel_by_its_name_or_instance() {
    let args = parse("--tunnel home-lab").unwrap();
    assert_eq!(args.tunnel.as_ref().unwrap().as_str(), "home-lab");
    assert!(!args.is_of_many());
    let args = parse("--tunnel a\\x2bb --check").unwrap();
    assert_eq!(args.tunnel.unwrap().as_str(), "a+b");
    for bad in ["../x", "\\x2e\\x2e\\x2fshadow", "qanahd", "-x", "a/b"] {
        assert!(usage_error(&format!("--tunnel={bad}")).contains("--tunnel"), "{bad}");
    }
    assert!(usage_error("--tunnel a --up b").contains("cannot be used with"));
    assert!(usage_error("--tunnel a --config b.conf").contains("cannot be used with"));
}

#[test]
fn the_environment_names_tunnels_for_a_daemon_of_many() {
    let mut args = parse("--up home").unwrap();
    args.add_names(Some("work, lab\t")).unwrap();
    let names: Vec<_> = args.up.iter().map(TunnelName::as_str).collect();
    assert_eq!(names, ["home", "work", "lab"]);
    args.add_names(Some("")).unwrap();
    assert!(args.add_names(Some("a/b")).unwrap_err().to_string().contains("QANAH_UP"));
    let mut one = parse("--tunnel home").unwrap();
    one.add_names(Some("work")).unwrap();
    assert_eq!(one.up.len(), 0);
}
