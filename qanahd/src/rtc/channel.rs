//! The data channel as two halves: frames in, frames out.

use std::sync::Arc;

use bytes::BytesMut;
use futures_util::FutureExt as _;
use webrtc::data_channel::{DataChannel, DataChannelEvent};
use webrtc::error::Error;

use super::handler::Shared;

/// An open data channel.
pub(crate) struct Channel {
    /// Sends frames.
    pub(crate) sender: ChannelSender,
    /// Receives frames.
    pub(crate) receiver: ChannelReceiver,
}

/// Why a frame was not sent. It is gone: whoever minds sends it anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SendError {
    /// The send buffer is full: the path or the peer is slower than the sender.
    #[error("the channel is full")]
    Full,
    /// The frame is larger than the other side takes.
    #[error("the frame is too large for the channel")]
    TooLarge,
    /// The channel is closed.
    #[error("the channel is closed")]
    Closed,
}

/// The sending half. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ChannelSender(Outlet);

#[derive(Clone)]
enum Outlet {
    Rtc(Arc<dyn DataChannel>),
    #[cfg(test)]
    Pipe(tokio::sync::mpsc::Sender<BytesMut>),
}

/// The receiving half.
///
/// Keep receiving: at most 256 frames wait in `webrtc`, then SCTP's window closes and the other side
/// has to wait too. Nothing is lost by that, and no other connection notices.
pub(crate) struct ChannelReceiver(Inlet);

enum Inlet {
    Rtc(Arc<dyn DataChannel>, Arc<Shared>),
    #[cfg(test)]
    Pipe(tokio::sync::mpsc::Receiver<BytesMut>),
}

impl Channel {
    pub(super) fn new(channel: Arc<dyn DataChannel>, shared: Arc<Shared>) -> Self {
        Self {
            sender: ChannelSender(Outlet::Rtc(Arc::clone(&channel))),
            receiver: ChannelReceiver(Inlet::Rtc(channel, shared)),
        }
    }

    /// Two channels, each the other's far end, that hold `capacity` frames a direction.
    #[cfg(test)]
    pub(crate) fn pipe(capacity: usize) -> (Self, Self) {
        let (left_out, right_in) = tokio::sync::mpsc::channel(capacity);
        let (right_out, left_in) = tokio::sync::mpsc::channel(capacity);
        let end = |sender, receiver| Self {
            sender: ChannelSender(Outlet::Pipe(sender)),
            receiver: ChannelReceiver(Inlet::Pipe(receiver)),
        };
        (end(left_out, left_in), end(right_out, right_in))
    }
}

impl ChannelSender {
    /// Sends a frame, or drops it. Never waits.
    ///
    /// `webrtc`'s `try_send` is async, but has only two points where it can wait. One is the lock of
    /// the connection: it is never held across another wait, so on one thread it is always free. The
    /// other is a yield to the runtime, which is ours and does not yield. So a single poll is
    /// always enough; were it not (several threads), the frame would be dropped as if the buffer were full.
    ///
    /// # Errors
    /// See [`SendError`]. The frame is dropped.
    pub(crate) fn try_send(&self, frame: BytesMut) -> Result<(), SendError> {
        match &self.0 {
            Outlet::Rtc(channel) => match channel.try_send(frame).now_or_never() {
                Some(Ok(())) => Ok(()),
                Some(Err(error)) => Err(send_error(&error)),
                None => Err(SendError::Full),
            },
            #[cfg(test)]
            Outlet::Pipe(pipe) => pipe.try_send(frame).map_err(|error| match error {
                tokio::sync::mpsc::error::TrySendError::Full(_) => SendError::Full,
                tokio::sync::mpsc::error::TrySendError::Closed(_) => SendError::Closed,
            }),
        }
    }

    /// Bytes sent but not yet acknowledged; `None` when closed.
    #[must_use]
    pub(crate) fn outstanding_bytes(&self) -> Option<usize> {
        match &self.0 {
            Outlet::Rtc(channel) => channel.outstanding_bytes().now_or_never()?.ok(),
            #[cfg(test)]
            Outlet::Pipe(pipe) => (!pipe.is_closed()).then_some(0),
        }
    }
}

fn send_error(error: &Error) -> SendError {
    match error {
        Error::ErrSendBufferFull => SendError::Full,
        Error::ErrOutboundPacketTooLarge => SendError::TooLarge,
        _ => SendError::Closed,
    }
}

impl ChannelReceiver {
    /// The next frame; `None` when the channel is closed. Safe to cancel.
    pub(crate) async fn recv(&mut self) -> Option<BytesMut> {
        match &mut self.0 {
            Inlet::Rtc(channel, shared) => {
                let frame = next_frame(channel.as_ref(), shared).await;
                if frame.is_none() {
                    shared.closed("the data channel was closed");
                }
                frame
            }
            #[cfg(test)]
            Inlet::Pipe(pipe) => pipe.recv().await,
        }
    }
}

async fn next_frame(channel: &dyn DataChannel, shared: &Shared) -> Option<BytesMut> {
    loop {
        match channel.poll().await? {
            // Text is not a frame.
            DataChannelEvent::OnMessage(message) if message.is_string => shared.count_stray(),
            DataChannelEvent::OnMessage(message) => return Some(message.data),
            DataChannelEvent::OnClose => return None,
            _ => {}
        }
    }
}

/// Waits for the channel to open and reports it.
pub(super) async fn open(channel: Arc<dyn DataChannel>, shared: Arc<Shared>) {
    loop {
        match channel.poll().await {
            Some(DataChannelEvent::OnOpen) => return shared.opened(channel),
            None | Some(DataChannelEvent::OnClose) => {
                return shared.closed("the data channel closed before it was open");
            }
            Some(_) => {}
        }
    }
}
