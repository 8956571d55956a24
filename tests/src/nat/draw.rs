//! Which cells of a table are run.

use std::fmt::Display;
use std::process::Command;

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore as _, SeedableRng as _};

/// One of how many cells is run by default.
const SHARE: usize = 3;

/// Which cells are run: all, or a third that the commit draws.
#[derive(Debug, Clone)]
pub struct Draw {
    /// What drew them, for people.
    pub name: String,
    seed: Option<[u8; 32]>,
    only: Option<String>,
}

impl Draw {
    /// All with `QANAH_MATRIX=all`, one with `QANAH_MATRIX=row/column` (for who looks for a fault);
    /// otherwise a third, drawn by the commit that is checked out.
    pub fn from_environment() -> Self {
        match std::env::var("QANAH_MATRIX") {
            Ok(all) if all == "all" => Self { name: "all cells".into(), seed: None, only: None },
            Ok(cell) if !cell.is_empty() => {
                Self { name: format!("only {cell}"), seed: None, only: Some(cell) }
            }
            // A source archive has no commit; its version is as good.
            _ => Self::by(&commit().unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned())),
        }
    }

    /// Whether somebody asked for a single cell.
    pub const fn is_one_cell(&self) -> bool {
        self.only.is_some()
    }

    /// A third, drawn by this text.
    pub fn by(text: &str) -> Self {
        let mut seed = [0u8; 32];
        for (index, byte) in text.bytes().enumerate() {
            if let Some(place) = seed.get_mut(index % 32) {
                *place = place.rotate_left(3) ^ byte;
            }
        }
        let short = text.get(..12).unwrap_or(text);
        Self { name: format!("a third, drawn by {short}"), seed: Some(seed), only: None }
    }

    /// Of a table with these rows and columns: whether each cell is run, row by row. Every row and every
    /// column has its share, so that no kind is left out.
    pub fn cells(&self, rows: &[impl Display], columns: &[impl Display]) -> Vec<Vec<bool>> {
        if let Some(only) = &self.only {
            let chosen = |row| columns.iter().map(|c| format!("{row}/{c}") == *only).collect();
            return rows.iter().map(chosen).collect();
        }
        self.draw(rows.len(), columns.len())
    }

    fn draw(&self, rows: usize, columns: usize) -> Vec<Vec<bool>> {
        let Some(seed) = self.seed else {
            return vec![vec![true; columns]; rows];
        };
        let mut rng = ChaCha8Rng::from_seed(seed);
        let mut shuffled = |count: usize| {
            let mut list: Vec<usize> = (0..count).collect();
            for last in (1..count).rev() {
                let other = usize::try_from(rng.next_u64() % (last as u64 + 1)).unwrap_or(0);
                list.swap(last, other);
            }
            list
        };
        let (rows, columns) = (shuffled(rows), shuffled(columns));
        let row = |row: &usize| {
            columns.iter().map(|column| (row + column).is_multiple_of(SHARE)).collect()
        };
        rows.iter().map(row).collect()
    }
}

fn commit() -> Option<String> {
    // Root runs the tests in a checkout of somebody else, which git would refuse.
    let output = Command::new("git")
        .args(["-c", "safe.directory=*", "-C", env!("CARGO_MANIFEST_DIR"), "rev-parse", "HEAD"])
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let commit = text.trim();
    let is_one = commit.len() >= 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_one.then(|| commit.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_third_is_drawn_and_every_cell_has_its_turn() {
        let mut met = vec![vec![0; 8]; 8];
        for commit in 0..60 {
            let cells = Draw::by(&format!("{commit:040x}")).draw(8, 8);
            let count = cells.iter().flatten().filter(|run| **run).count();
            assert!((20..=23).contains(&count), "{count}");
            for row in &cells {
                assert!((2..=3).contains(&row.iter().filter(|run| **run).count()));
            }
            for (sums, row) in met.iter_mut().zip(&cells) {
                for (sum, run) in sums.iter_mut().zip(row) {
                    *sum += usize::from(*run);
                }
            }
        }
        assert!(met.iter().flatten().all(|sum| *sum > 0), "{met:?}");
        let all = Draw { name: String::new(), seed: None, only: None }.draw(2, 3);
        assert_eq!(all, vec![vec![true; 3]; 2]);
    }
}
