//! What the library calls, on its threads: tells the worker, or judges a message, and returns.
//!
//! They take a mutex that is only ever held for a few instructions, and wait for nothing. None of them
//! may panic: the frames below are C.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::Arc;

use paho_mqtt_sys as paho;

use super::super::inbox::Inbox;
use super::super::mailbox::{Mailbox, Notice, Refuser};
use super::Code;

/// What the callbacks need. The library holds a pointer to it for as long as the client exists.
pub(super) struct Context {
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) inbox: Arc<Inbox>,
}

/// Copies a C string that may be NULL.
///
/// # Safety
/// `text` is NULL or a NUL-terminated string that is valid for the call.
pub(super) unsafe fn text(text: *const c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: promised by the caller.
    Some(unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
}

/// # Safety
/// `context` is the one that a live `Client` gave to the library.
unsafe fn context<'a>(context: *mut c_void) -> &'a Context {
    // SAFETY: `Client` keeps the box until the library has made its last callback.
    unsafe { &*context.cast::<Context>() }
}

pub(super) unsafe extern "C" fn on_message(
    user: *mut c_void,
    topic: *mut c_char,
    topic_length: c_int,
    mut message: *mut paho::MQTTAsync_message,
) -> c_int {
    // SAFETY: the library passes our context, a topic of `topic_length` bytes (or terminated, when that
    // is 0) and a message, both ours to free.
    unsafe {
        let name = match usize::try_from(topic_length) {
            Ok(0) | Err(_) => CStr::from_ptr(topic).to_bytes(),
            Ok(length) => std::slice::from_raw_parts(topic.cast::<u8>(), length),
        };
        let body = &*message;
        let payload = match usize::try_from(body.payloadlen) {
            Ok(length) if length > 0 && !body.payload.is_null() => {
                std::slice::from_raw_parts(body.payload.cast::<u8>(), length)
            }
            _ => &[],
        };
        context(user).inbox.offer(name, payload, body.retained != 0);
        paho::MQTTAsync_freeMessage(&mut message);
        paho::MQTTAsync_free(topic.cast());
    }
    1
}

pub(super) unsafe extern "C" fn on_lost(user: *mut c_void, _cause: *mut c_char) {
    // SAFETY: the library passes our context.
    unsafe { context(user) }.mailbox.notify(Notice::Lost);
}

pub(super) unsafe extern "C" fn on_disconnected(
    user: *mut c_void,
    _properties: *mut paho::MQTTProperties,
    reason: paho::MQTTReasonCodes,
) {
    let reason = reason_text(reason);
    // SAFETY: the library passes our context.
    unsafe { context(user) }.mailbox.notify(Notice::Dismissed(reason));
}

pub(super) unsafe extern "C" fn on_connected5(
    user: *mut c_void,
    _: *mut paho::MQTTAsync_successData5,
) {
    // SAFETY: the library passes our context.
    unsafe { context(user) }.mailbox.notify(Notice::Connected);
}

pub(super) unsafe extern "C" fn on_connected(
    user: *mut c_void,
    _: *mut paho::MQTTAsync_successData,
) {
    // SAFETY: the library passes our context.
    unsafe { context(user) }.mailbox.notify(Notice::Connected);
}

/// "Unsupported Protocol Version" of MQTT 5, and "unacceptable protocol version" of 3.1.1, which is what
/// an older broker answers to a version that it does not know.
fn is_version(code: paho::MQTTReasonCodes) -> bool {
    code == 0x84 || code == 1
}

pub(super) unsafe extern "C" fn on_refused5(
    user: *mut c_void,
    data: *mut paho::MQTTAsync_failureData5,
) {
    // SAFETY: the library passes our context, and NULL or data that is valid for the call.
    unsafe {
        let (by, reason) = match data.as_ref() {
            Some(data) if is_version(data.reasonCode) => {
                (Refuser::Version, String::from("the broker does not speak MQTT 5"))
            }
            Some(data) if data.reasonCode > 0 => (Refuser::Broker, reason_text(data.reasonCode)),
            Some(data) => {
                let reason = text(data.message).unwrap_or_else(|| Code(data.code).to_string());
                (Refuser::Library, reason)
            }
            None => (Refuser::Library, String::from("no reason given")),
        };
        context(user).mailbox.notify(Notice::Refused { by, reason });
    }
}

pub(super) unsafe extern "C" fn on_refused(
    user: *mut c_void,
    data: *mut paho::MQTTAsync_failureData,
) {
    // SAFETY: as above.
    unsafe {
        let by = match data.as_ref() {
            Some(data) if data.code > 0 => Refuser::Broker,
            _ => Refuser::Library,
        };
        let reason = match data.as_ref() {
            // The positive codes are those of the CONNACK (MQTT 3.1.1, table 3.1).
            Some(data) if data.code > 0 => String::from(match data.code {
                1 => "the broker does not speak this version of MQTT",
                2 => "the broker refuses the client id",
                3 => "the broker is not available",
                4 => "bad user name or password",
                _ => "not authorized",
            }),
            Some(data) => text(data.message).unwrap_or_else(|| Code(data.code).to_string()),
            None => String::from("no reason given"),
        };
        context(user).mailbox.notify(Notice::Refused { by, reason });
    }
}

pub(super) unsafe extern "C" fn on_subscribed5(
    user: *mut c_void,
    data: *mut paho::MQTTAsync_successData5,
) {
    // SAFETY: the library passes our context and data that is valid for the call. The array is filled
    // only when the broker answered with more than one code, and then has that many elements.
    unsafe {
        let refused = data.as_ref().map_or(0, |data| {
            let codes = data.alt.sub;
            match usize::try_from(codes.reasonCodeCount) {
                Ok(length) if length > 1 && !codes.reasonCodes.is_null() => {
                    let codes = std::slice::from_raw_parts(codes.reasonCodes, length);
                    codes.iter().filter(|code| **code >= 0x80).count()
                }
                _ => usize::from(data.reasonCode >= 0x80),
            }
        });
        context(user).mailbox.notify(Notice::Subscribed { answers: 1, refused });
    }
}

/// Also called when the connection ends before there is an answer; that is no answer then.
pub(super) unsafe extern "C" fn on_not_subscribed5(
    user: *mut c_void,
    data: *mut paho::MQTTAsync_failureData5,
) {
    // SAFETY: the library passes our context, and NULL or data that is valid for the call.
    unsafe {
        if data.as_ref().is_some_and(|data| data.reasonCode >= 0x80) {
            context(user).mailbox.notify(Notice::Subscribed { answers: 1, refused: 1 });
        }
    }
}

pub(super) unsafe extern "C" fn on_subscribed(
    user: *mut c_void,
    _: *mut paho::MQTTAsync_successData,
) {
    // SAFETY: the library passes our context. The data is not touched: it may be a number or a list.
    unsafe { context(user) }.mailbox.notify(Notice::Subscribed { answers: 1, refused: 0 });
}

/// See [`on_not_subscribed5`].
pub(super) unsafe extern "C" fn on_not_subscribed(
    user: *mut c_void,
    data: *mut paho::MQTTAsync_failureData,
) {
    // SAFETY: the library passes our context, and NULL or data that is valid for the call.
    unsafe {
        if data.as_ref().is_some_and(|data| data.code >= 0x80) {
            context(user).mailbox.notify(Notice::Subscribed { answers: 1, refused: 1 });
        }
    }
}

fn reason_text(reason: paho::MQTTReasonCodes) -> String {
    // SAFETY: takes any number; returns NULL or a static string.
    unsafe { text(paho::MQTTReasonCode_toString(reason)) }
        .unwrap_or_else(|| format!("MQTT reason code {reason:#x}"))
}
