//! A tunnel from its first step to its last undo, on its thread, with the hooks between.
//!
//! The order is that of wg-quick(8). Up: the interface; PreUp; addresses, routes; PostUp. Down:
//! PreDown; the interface goes; PostDown. When a start fails, what was done is undone without
//! PreDown and PostDown, which are the counterparts of a start that did not happen.

use std::cell::Cell;
use std::time::Duration;

use qanah_core::config::Hooks;
use tokio::sync::{oneshot, watch};
use tokio::task::LocalSet;
use tracing::{error_span, info, warn};

use super::actor::{Actor, Start};
use super::{Ended, TunnelError};
use crate::events::{DOWN, UP};
use crate::platform::hooks::{self, Kind, Limits};
use crate::platform::netlink::{Applied, begin};

/// What runs beside the tunnel.
pub(super) struct Course {
    pub(super) name: String,
    pub(super) hooks: Hooks,
    pub(super) limits: Limits,
    pub(super) stop: watch::Receiver<bool>,
    pub(super) ready: oneshot::Sender<()>,
}

/// Runs a tunnel on the calling thread.
pub(super) fn run(start: Start, course: Course) -> Ended {
    // Everything that is logged on this thread is about this tunnel, at whatever level.
    let _span = error_span!("tunnel", TUNNEL = %course.name).entered();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Ended::failed(TunnelError::Thread(error)),
    };
    let tasks = LocalSet::new();
    let ended = tasks.block_on(&runtime, up_and_down(start, course));
    drop(tasks);
    // A name lookup that hangs must not hold up the end.
    runtime.shutdown_timeout(Duration::from_millis(100));
    ended
}

async fn up_and_down(start: Start, mut course: Course) -> Ended {
    let mut applied = match begin(&start.steps).await {
        Ok(applied) => applied,
        Err(error) => return Ended::failed(error.into()),
    };
    if let Err(error) = set_up(&start, &mut course, &mut applied).await {
        // The reason for the failure is what the caller needs; undo logs its own.
        let _ = applied.undo().await;
        return Ended::failed(error);
    }
    let Course { name, hooks, limits, mut stop, ready } = course;
    let mut actor = Actor::new(start, applied);
    let was_up = Cell::new(false);
    let outcome = {
        let announced = async {
            let post_up = &hooks.post_up;
            hooks::run_until_failure(Kind::PostUp, post_up, &name, limits, &mut stop).await?;
            info!(EVENT = UP.name, MESSAGE_ID = UP.id, "the tunnel {name} is up");
            was_up.set(true);
            let _ = ready.send(());
            // An error means that whoever could stop it is gone.
            let _ = stop.wait_for(|stop| *stop).await;
            Ok::<_, TunnelError>(
                hooks::run_all(Kind::PreDown, &hooks.pre_down, &name, limits).await,
            )
        };
        tokio::select! {
            course = announced => course,
            error = actor.serve() => Err(error),
        }
    };
    let was_up = was_up.get();
    let (outcome, mut failures) = match outcome {
        Ok(failures) => (Ok(()), failures),
        // Ended by itself: the hooks may still undo what does not belong to the interface.
        Err(error) if was_up => {
            (Err(error), hooks::run_all(Kind::PreDown, &hooks.pre_down, &name, limits).await)
        }
        Err(error) => (Err(error), Vec::new()),
    };
    let applied = actor.goodbye().await;
    let undone = applied.undo().await;
    if was_up {
        failures.extend(hooks::run_all(Kind::PostDown, &hooks.post_down, &name, limits).await);
        info!(EVENT = DOWN.name, MESSAGE_ID = DOWN.id, "the tunnel {name} is down");
    }
    let mut notes: Vec<String> = failures.iter().map(ToString::to_string).collect();
    if let Err(error) = undone {
        warn!("the tunnel was not taken back cleanly: {error}");
        notes.push(error.to_string());
    }
    Ended { outcome, notes }
}

async fn set_up(
    start: &Start,
    course: &mut Course,
    applied: &mut Applied,
) -> Result<(), TunnelError> {
    let Course { name, hooks, limits, stop, .. } = course;
    hooks::run_until_failure(Kind::PreUp, &hooks.pre_up, name, *limits, stop).await?;
    applied.finish(&start.steps).await?;
    Ok(())
}
