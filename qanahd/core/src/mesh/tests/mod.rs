//! Meshes of several peers over links that are cut and a broker that fails.

mod hands;
mod histories;
mod node;
mod rules;
mod sealed;
mod vectors;
mod world;
