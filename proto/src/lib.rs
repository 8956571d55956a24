//! The control API of Qanah: messages, client and socket paths.
