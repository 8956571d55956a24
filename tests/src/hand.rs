//! Pairing by hand, as two people do it with files.

use std::path::PathBuf;

use anyhow::{Result, ensure};

use crate::daemon::{Said, figure, qanahctl};
use crate::lab::Lab;
use crate::mesh::Mesh;

/// Runs `qanahctl` on node `n` and gives what it said.
///
/// # Errors
/// When it cannot be done, or does not go well.
pub fn ctl(mesh: &Mesh, n: usize, line: &str) -> Result<Said> {
    let words: Vec<_> = line.split_whitespace().collect();
    qanahctl(mesh.daemon(n)?.place(), &words)
}

/// As [`ctl`], and it must go well.
///
/// # Errors
/// When it cannot be done, or does not go well.
pub fn well(mesh: &Mesh, n: usize, line: &str) -> Result<Said> {
    let said = ctl(mesh, n, line)?;
    ensure!(said.code == 0, "{line}: {said:?}");
    Ok(said)
}

/// Writes a text into a file, as somebody does who got it by mail.
///
/// # Errors
/// When it cannot be done, or does not go well.
pub fn file(lab: &Lab, name: &str, text: &str) -> Result<PathBuf> {
    lab.write(name, text)
}

/// Carries an offer of node `a` for node `b`, and the answer back.
///
/// # Errors
/// When it cannot be done, or does not go well.
pub fn pair(lab: &Lab, mesh: &Mesh, (a, b): (usize, usize), peer: &str) -> Result<()> {
    let offer = well(mesh, a, &format!("offer --tunnel peer{a} {peer}"))?;
    let path = file(lab, &format!("offer-{a}-{b}.txt"), &offer.out)?;
    let answer = well(mesh, b, &format!("answer --tunnel peer{b} {}", path.display()))?;
    let path = file(lab, &format!("answer-{a}-{b}.txt"), &answer.out)?;
    well(mesh, a, &format!("accept --tunnel peer{a} {}", path.display()))?;
    figure(
        "characters of an offer and an answer",
        format!("{} {}", offer.out.len(), answer.out.len()),
    );
    Ok(())
}
