//! End-to-end tests of Qanah: namespaces, brokers and TURN servers that they own.
