//! What clients are told of what failed.

use super::keeper::StartError;
use crate::config_file::ConfigFileError;
use crate::control::ControlFailure;
use crate::platform::hooks;
use crate::tunnel::TunnelError;

/// What a client is told of a failed start. `quotes`: it may see what the configuration says.
pub(super) fn failure(error: &StartError, quotes: bool) -> ControlFailure {
    match error {
        StartError::File(error) => file_failure(error, quotes),
        StartError::Tunnel(error) => tunnel_failure(error),
        StartError::Cancelled => ControlFailure::StartFailed(error.to_string()),
        StartError::Panicked => ControlFailure::Internal,
    }
}

/// What a client is told of a configuration that cannot be used.
pub(super) fn file_failure(error: &ConfigFileError, quotes: bool) -> ControlFailure {
    let text = if quotes { error.to_string() } else { error.without_quotes() };
    if error.is_about_the_file() {
        ControlFailure::ConfigFile(text)
    } else {
        ControlFailure::BadConfig(text)
    }
}

pub(super) fn tunnel_failure(error: &TunnelError) -> ControlFailure {
    let text = error.to_string();
    match error {
        TunnelError::Key { .. } | TunnelError::Plan(_) | TunnelError::OtherKey => {
            ControlFailure::BadConfig(text)
        }
        TunnelError::Hook(error) if error.what == hooks::Fault::BrokenOff => {
            ControlFailure::StartFailed(StartError::Cancelled.to_string())
        }
        TunnelError::Hook(_) => ControlFailure::HookFailed(text),
        TunnelError::Platform(_) | TunnelError::Thread(_) | TunnelError::Interface(_) => {
            ControlFailure::StartFailed(text)
        }
        TunnelError::Panicked => ControlFailure::Internal,
    }
}
