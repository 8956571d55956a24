//! The examples and the first steps of the README, done as they are written, on machines that boot a
//! real systemd.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use qanah_tests::behind::{carrier_nat, host, translate};
use qanah_tests::lab::{Lab, in_lab};
use qanah_tests::ns::Place;
use qanah_tests::secure::{
    Authority, BROKER_NAME, BROKER4, SecureBroker, SecureTurn, TURN_SECRET, TURN4, TurnLogin,
    addresses, only,
};
use qanah_tests::story::{Cast, Stage, equip, perform};
use qanah_tests::{Image, Machine};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The machines that a document has, booted and equipped, and what they do not have by themselves.
fn cast(lab: &Lab, image: &Image, directory: &Path, places: &[(&str, Place)]) -> Result<Cast> {
    // All at once: most of it is waiting.
    let started = places.iter().map(|(name, place)| Machine::start(lab, *place, image, name));
    let mut machines = started.collect::<Result<Vec<_>>>()?;
    let deb = image.deb(false)?;
    for machine in &mut machines {
        machine.wait()?;
        machine.know_public_servers()?;
        equip(machine, &deb, directory)?;
    }
    Ok(machines.into_iter().map(|m| (m.name().to_owned(), Stage::Machine(m))).collect())
}

/// Does what the README of an example says, on one node for each name.
fn example(name: &str, machines: &[&str]) -> Result<()> {
    in_image_lab(machines.len(), |lab, image| {
        let _servers = lab.public_servers()?;
        let nodes = machines.iter().zip(lab.nodes());
        let places: Vec<_> = nodes.map(|(name, node)| (*name, node.place())).collect();
        let (directory, text) = read(name)?;
        perform(&cast(lab, image, &directory, &places)?, &text)
    })
}

fn read(name: &str) -> Result<(PathBuf, String)> {
    let directory = root().join("examples").join(name);
    let text = fs::read_to_string(directory.join("README.md")).context(name.to_owned())?;
    Ok((directory, text))
}

fn in_image_lab(nodes: usize, test: impl FnOnce(&Lab, &Image) -> Result<()>) -> Result<()> {
    let Some(image) = Image::find()? else {
        return Ok(());
    };
    in_lab(nodes, |lab| test(lab, &image))
}

#[test]
fn home_lab() -> Result<()> {
    in_image_lab(2, |lab, image| {
        let _servers = lab.public_servers()?;
        let [_router, server] = carrier_nat(lab.node(1)?.place(), 50)?;
        let cafe = lab.node(2)?.place();
        let laptop = host(cafe, 60)?;
        translate(cafe)?;
        let (directory, text) = read("home-lab")?;
        let places = [("server", server.place()), ("laptop", laptop.place())];
        perform(&cast(lab, image, &directory, &places)?, &text)
    })
}

#[test]
fn team_mesh() -> Result<()> {
    example("team-mesh", &["ann", "ben", "cleo"])
}

#[test]
fn by_hand() -> Result<()> {
    in_image_lab(2, |lab, image| {
        // There is no broker at all, and no STUN server: what works, works without them.
        let places = [("ann", lab.node(1)?.place()), ("ben", lab.node(2)?.place())];
        let (directory, text) = read("by-hand")?;
        perform(&cast(lab, image, &directory, &places)?, &text)
    })
}

#[test]
fn ci_job() -> Result<()> {
    example("ci-job", &["target", "job"])
}

#[test]
fn two_sites() -> Result<()> {
    in_image_lab(2, |lab, image| {
        let _servers = lab.public_servers()?;
        let places = [("berlin", lab.node(1)?.place()), ("paris", lab.node(2)?.place())];
        let pcs = [host(places[0].1, 20)?, host(places[1].1, 30)?];
        let (directory, text) = read("two-sites")?;
        let mut cast = cast(lab, image, &directory, &places)?;
        for (name, pc) in ["berlin-pc", "paris-pc"].into_iter().zip(&pcs) {
            cast.insert(name.to_owned(), Stage::Host(pc.place()));
        }
        perform(&cast, &text)
    })
}

#[test]
fn udp_blocked() -> Result<()> {
    in_image_lab(2, |lab, image| {
        let authority = Authority::new(lab.dir(), "example")?;
        for name in ["turn.example.com", "broker.example.com"] {
            authority.server(name)?;
        }
        fs::rename(authority.cert("broker.example.com"), authority.cert(BROKER_NAME))?;
        fs::rename(authority.key("broker.example.com"), authority.key(BROKER_NAME))?;
        addresses(lab)?;
        let turn = SecureTurn::start(lab, &authority, "turn.example.com", TurnLogin::Secret)?;
        let _broker = SecureBroker::start(lab, &authority)?;
        let office = lab.node(1)?;
        only(office, "tcp dport 443")?;
        let places = [("office", office.place()), ("home", lab.node(2)?.place())];
        let (directory, text) = read("udp-blocked")?;
        let cast = cast(lab, image, &directory, &places)?;
        let ca = fs::read_to_string(authority.cert("ca"))?;
        for stage in cast.values() {
            let Stage::Machine(machine) = stage else { continue };
            let names = format!("{TURN4} turn.example.com\\n{BROKER4} broker.example.com\\n");
            machine.run(&format!(
                "sed -i /example.com/d /etc/hosts; printf '{names}' >> /etc/hosts"
            ))?;
            machine.write_as("ann", "/home/ann/ca.pem", &ca)?;
            machine.write_as("ann", "/home/ann/turn-secret", &format!("{TURN_SECRET}\n"))?;
        }
        perform(&cast, &text)?;
        ensure!(turn.made() > 0, "it went without the TURN server");
        Ok(())
    })
}

#[test]
fn first_steps_of_the_readme() -> Result<()> {
    in_image_lab(2, |lab, image| {
        let _servers = lab.public_servers()?;
        let places = [("home", lab.node(1)?.place()), ("laptop", lab.node(2)?.place())];
        let text = fs::read_to_string(root().join("README.md"))?;
        // No files: the README tells how they are made.
        let empty = lab.dir().join("no-files");
        fs::create_dir(&empty)?;
        perform(&cast(lab, image, &empty, &places)?, &text)
    })
}
