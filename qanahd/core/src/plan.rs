//! From a configuration to ordered steps on the system, and back.
