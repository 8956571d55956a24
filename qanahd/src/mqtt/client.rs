//! One MQTT client of the Paho C library, behind a safe interface.
//!
//! Why the C interface and not the safe `paho-mqtt` crate on top of it: that crate's message callback
//! unwraps the topic of every message as UTF-8 without NUL inside an `extern "C"` function, so a broker
//! ends the whole process with one packet; it reads past a short SUBACK of MQTT 3.1.1; it copies a
//! payload of any size before it asks us; and it prints the connect options, password and all, at debug
//! level. Here a message is judged where it lies.
//!
//! Facts about the library that the code below leans on (1.3.16):
//! - Every callback runs on one of its two threads, or inside `MQTTAsync_destroy`, with its global lock
//!   held. So none comes after `MQTTAsync_destroy` has returned, and none may wait for anything.
//! - That lock is also held while it resolves a name and taken by every call. So calls are made from
//!   worker threads only, never from an async task.
//! - `MQTTAsync_connect` and the others copy what they are given.

#![allow(unsafe_code)]

mod callbacks;

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};

use paho_mqtt_sys as paho;

use self::callbacks::*;
use super::inbox::Inbox;
use super::mailbox::Mailbox;

/// Publications wait in the library only while its socket is full; then at most so many.
const MAX_BUFFERED: c_int = 32;

/// A client is declared dead by the library at most two and a half of these after the last sign of life. A broker with
/// MQTT 5 may ask for another time, or none; TCP then still finds out when its machine is gone.
const KEEP_ALIVE_SECONDS: c_int = 20;

/// Time for the broker to welcome us: the connection to it is there by then. The library looks at it every three
/// seconds.
const CONNECT_TIMEOUT_SECONDS: c_int = 8;

/// The largest MQTT packet that a broker may send us (MQTT 5, section 3.1.2.11.4): the largest payload
/// that is read at all, and room for topic and properties. Larger ones are dropped by the broker, or else by
/// the gate.
pub(super) const MAX_PACKET_SIZE: u32 = 4096 + 1024;
const _: () = assert!(super::MAX_PAYLOAD == 4096);

/// Creating a client while another thread destroys the last one races inside the library, which then
/// starts and stops its threads at the same time.
static LIBRARY: Mutex<()> = Mutex::new(());

/// The protocol version to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// MQTT 5: the broker keeps large and retained messages away from us.
    V5,
    /// MQTT 3.1.1, for brokers that refuse 5.
    V311,
}

/// How to log in at a broker.
pub(super) struct Connect<'a> {
    pub(super) user: Option<&'a CStr>,
    pub(super) password: Option<&'a [u8]>,
}

/// A return code of the library, as its own text.
#[derive(Debug)]
pub(super) struct Code(c_int);

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0 == paho::MQTTASYNC_DISCONNECTED {
            return f.write_str("connection lost");
        }
        // SAFETY: takes any number; returns NULL or a static string.
        let text = unsafe { text(paho::MQTTAsync_strerror(self.0)) };
        match text {
            Some(text) => f.write_str(&text),
            None => write!(f, "MQTT library error {}", self.0),
        }
    }
}

fn check(code: c_int) -> Result<(), Code> {
    if code == 0 { Ok(()) } else { Err(Code(code)) }
}

/// A client of the library. Created, used and dropped on one thread.
pub(super) struct Client {
    handle: paho::MQTTAsync,
    version: Version,
    context: Box<Context>,
}

impl Client {
    /// Makes a client that is not connected yet. Nothing is sent.
    pub(super) fn new(
        uri: &CStr,
        id: &CStr,
        version: Version,
        mailbox: Arc<Mailbox>,
        inbox: Arc<Inbox>,
    ) -> Result<Self, Code> {
        let context = Box::new(Context { mailbox, inbox });
        let mut options = paho::MQTTAsync_createOptions {
            MQTTVersion: wire_version(version),
            maxBufferedMessages: MAX_BUFFERED,
            ..Default::default()
        };
        let mut client = Self { handle: ptr::null_mut(), version, context };
        let _guard = LIBRARY.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: all pointers are valid for the call; persistence "none" takes no context. On failure
        // `drop` destroys a half made client, or does nothing to a handle that stayed null.
        check(unsafe {
            paho::MQTTAsync_createWithOptions(
                &mut client.handle,
                uri.as_ptr(),
                id.as_ptr(),
                paho::MQTTCLIENT_PERSISTENCE_NONE as c_int,
                ptr::null_mut(),
                &mut options,
            )
        })?;
        // SAFETY: the context is boxed, so it stays where it is until `drop`, after the last callback.
        unsafe {
            check(paho::MQTTAsync_setCallbacks(
                client.handle,
                client.context(),
                Some(on_lost),
                Some(on_message),
                None,
            ))?;
            check(paho::MQTTAsync_setDisconnected(
                client.handle,
                client.context(),
                Some(on_disconnected),
            ))?;
        }
        Ok(client)
    }

    fn context(&self) -> *mut c_void {
        ptr::from_ref::<Context>(&self.context).cast_mut().cast()
    }

    /// Starts to connect. The end is a `Notice::Connected` or `Notice::Refused`.
    pub(super) fn connect(&self, how: &Connect<'_>) -> Result<(), Code> {
        let mut size = properties(paho::MQTTPropertyCodes_MQTTPROPERTY_CODE_MAXIMUM_PACKET_SIZE);
        let mut options = match self.version {
            Version::V5 => paho::MQTTAsync_connectOptions {
                connectProperties: size.as_mut_ptr(),
                onSuccess5: Some(on_connected5),
                onFailure5: Some(on_refused5),
                ..paho::MQTTAsync_connectOptions::new_v5()
            },
            Version::V311 => paho::MQTTAsync_connectOptions {
                MQTTVersion: wire_version(Version::V311),
                onSuccess: Some(on_connected),
                onFailure: Some(on_refused),
                ..paho::MQTTAsync_connectOptions::new_v3()
            },
        };
        options.keepAliveInterval = KEEP_ALIVE_SECONDS;
        options.connectTimeout = CONNECT_TIMEOUT_SECONDS;
        options.context = self.context();
        options.username = or_null(how.user);
        if let Some(password) = how.password {
            options.binarypwd.len = c_int::try_from(password.len()).unwrap_or(0);
            options.binarypwd.data = password.as_ptr().cast();
        }
        // SAFETY: the handle is live; what the options point to outlives the call, which copies it.
        check(unsafe { paho::MQTTAsync_connect(self.handle, &options) })
    }

    /// Asks for a few topics in one packet. The end is a `Notice::Subscribed`.
    pub(super) fn subscribe(&self, topics: &[CString]) -> Result<(), Code> {
        // Retained messages: not sent when we subscribe (2), and kept recognisable later (1).
        let options = paho::MQTTSubscribe_options {
            retainAsPublished: 1,
            retainHandling: 2,
            ..Default::default()
        };
        let mut list = vec![options; topics.len()];
        let mut response =
            paho::MQTTAsync_responseOptions { context: self.context(), ..Default::default() };
        match self.version {
            Version::V5 => {
                response.onSuccess5 = Some(on_subscribed5);
                response.onFailure5 = Some(on_not_subscribed5);
                response.subscribeOptions = options;
                response.subscribeOptionsCount = count(topics);
                response.subscribeOptionsList = list.as_mut_ptr();
            }
            Version::V311 => {
                response.onSuccess = Some(on_subscribed);
                response.onFailure = Some(on_not_subscribed);
            }
        }
        let names = pointers(topics);
        let qos = vec![0; topics.len()];
        // SAFETY: the arrays have `count` elements each and outlive the call, which copies them.
        check(unsafe {
            paho::MQTTAsync_subscribeMany(
                self.handle,
                count(topics),
                names.as_ptr(),
                qos.as_ptr(),
                &mut response,
            )
        })
    }

    /// How many topics one [`subscribe`](Self::subscribe) may name. The library does not say how long a
    /// SUBACK of MQTT 3.1.1 was, so there each is asked for alone.
    pub(super) fn topics_per_request(&self) -> usize {
        match self.version {
            Version::V5 => 32,
            Version::V311 => 1,
        }
    }

    /// Gives topics up. Nobody waits for the answer.
    pub(super) fn unsubscribe(&self, topics: &[CString]) -> Result<(), Code> {
        let names = pointers(topics);
        let mut response = paho::MQTTAsync_responseOptions::default();
        // SAFETY: as in `subscribe`.
        check(unsafe {
            paho::MQTTAsync_unsubscribeMany(
                self.handle,
                count(topics),
                names.as_ptr(),
                &mut response,
            )
        })
    }

    /// Hands over one publication: QoS 0, not retained.
    pub(super) fn publish(&self, topic: &CStr, payload: &[u8]) -> Result<(), Code> {
        let length = c_int::try_from(payload.len()).map_err(|_| Code(-1))?;
        // SAFETY: `length` bytes are valid for the call, which copies them; no response is wanted.
        check(unsafe {
            paho::MQTTAsync_send(
                self.handle,
                topic.as_ptr(),
                length,
                payload.as_ptr().cast(),
                0,
                0,
                ptr::null_mut(),
            )
        })
    }
}

impl Drop for Client {
    /// Says goodbye to the broker and frees the client; with the last one the library's threads end,
    /// which takes up to about a second.
    fn drop(&mut self) {
        let _guard = LIBRARY.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the handle came from the library and is destroyed once. A null handle is refused.
        unsafe { paho::MQTTAsync_destroy(&mut self.handle) };
    }
}

fn wire_version(version: Version) -> c_int {
    match version {
        Version::V5 => paho::MQTTVERSION_5 as c_int,
        Version::V311 => paho::MQTTVERSION_3_1_1 as c_int,
    }
}

fn or_null(text: Option<&CStr>) -> *const c_char {
    text.map_or(ptr::null(), CStr::as_ptr)
}

fn count(topics: &[CString]) -> c_int {
    c_int::try_from(topics.len()).unwrap_or(0)
}

fn pointers(topics: &[CString]) -> Vec<*mut c_char> {
    topics.iter().map(|topic| topic.as_ptr().cast_mut()).collect()
}

/// A property list of one number, freed with its owner.
struct Properties(paho::MQTTProperties);

fn properties(code: paho::MQTTPropertyCodes) -> Properties {
    let mut list = paho::MQTTProperties::default();
    let property = paho::MQTTProperty {
        identifier: code,
        value: paho::MQTTProperty__bindgen_ty_1 { integer4: MAX_PACKET_SIZE },
    };
    // SAFETY: both are valid; the number is of the four-byte type that the code demands.
    unsafe { paho::MQTTProperties_add(&mut list, &property) };
    Properties(list)
}

impl Properties {
    fn as_mut_ptr(&mut self) -> *mut paho::MQTTProperties {
        &mut self.0
    }
}

impl Drop for Properties {
    fn drop(&mut self) {
        // SAFETY: the list was made by `MQTTProperties_add` and is freed once.
        unsafe { paho::MQTTProperties_free(&mut self.0) };
    }
}
