//! Who may call what on the control socket.
