//! The test vectors of the specification, read from the specification.

use std::collections::BTreeMap;

const PROTOCOL: &str = include_str!("../../../../proto/PROTOCOL.md");

/// All `name = hex` lines of the fenced block that is marked `vectors`.
pub(crate) struct Vectors(BTreeMap<String, Vec<u8>>);

impl Vectors {
    pub(crate) fn read() -> Self {
        let (_, rest) = PROTOCOL.split_once("```vectors\n").expect("a vectors block");
        let (block, _) = rest.split_once("```").expect("the end of the block");
        let pairs =
            block.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(|line| {
                let (name, hex) = line.split_once(" = ").expect("name = hex");
                (name.to_owned(), unhex(hex))
            });
        Self(pairs.collect())
    }

    pub(crate) fn get(&self, name: &str) -> &[u8] {
        self.0.get(name).unwrap_or_else(|| panic!("no vector {name}"))
    }

    pub(crate) fn array<const N: usize>(&self, name: &str) -> [u8; N] {
        self.get(name).try_into().expect(name)
    }
}

fn unhex(hex: &str) -> Vec<u8> {
    assert!(hex.len().is_multiple_of(2), "odd number of digits: {hex}");
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal"))
        .collect()
}
