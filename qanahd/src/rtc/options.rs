//! Our settings as the options of `webrtc`, and the limits of time in them.

use std::time::Duration;

use webrtc::peer_connection::{
    RTCConfiguration, RTCConfigurationBuilder, RTCIceServer, RTCIceTransportPolicy, SettingEngine,
    SettingEngineBuilder,
};
use webrtc_core::ice::mdns::MulticastDnsMode;
use webrtc_core::peer_connection::configuration::setting_engine::SctpMaxMessageSize;

use super::Settings;
use super::turn::{Carrier, placeholder};

/// Nothing heard for so long: disconnected.
pub(super) const DISCONNECTED_AFTER: Duration = Duration::from_secs(6);
/// And for so long after that: failed. Together 12 s.
pub(super) const FAILED_AFTER: Duration = Duration::from_secs(6);
/// Consent checks on the chosen path (RFC 7675); they keep NAT bindings alive too.
const KEEPALIVE: Duration = Duration::from_secs(2);
/// How often a pair is checked. `webrtc` gives a pair up after 7 checks, 1.4 s: too soon for a hole to be punched
/// from both sides when signaling takes longer than that. So checks go on for as long as ICE tries at all.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);
/// How long a working pair waits for a better one: what is chosen first stays. A direct path through NATs
/// waits a little for one on the LAN; a relayed one waits long, for hole punching to succeed. A peer-reflexive
/// candidate is mostly a host's whose signaling was slower than its first check, so it waits little.
const REFLEXIVE_WAIT: Duration = Duration::from_millis(300);
const RELAYED_WAIT: Duration = Duration::from_secs(2);

/// What a connection may use, with passwords for TURN servers that are made now.
pub(super) fn configuration(settings: &Settings) -> RTCConfiguration {
    let policy =
        if settings.relay_only { RTCIceTransportPolicy::Relay } else { RTCIceTransportPolicy::All };
    RTCConfigurationBuilder::new()
        .with_ice_servers(ice_servers(settings))
        .with_ice_transport_policy(policy)
        .build()
}

/// The servers as `webrtc` wants them.
fn ice_servers(settings: &Settings) -> Vec<RTCIceServer> {
    let stun = settings
        .stun
        .iter()
        .map(|url| RTCIceServer { urls: vec![url.clone()], ..RTCIceServer::default() });
    let turn = settings.turn.iter().enumerate().map(|(index, server)| {
        let (username, credential) = server.credentials();
        let url = match server.carrier {
            Carrier::Udp => server.url(),
            Carrier::Tcp | Carrier::Tls(_) => placeholder::url(index),
        };
        RTCIceServer { urls: vec![url], username, credential }
    });
    stun.chain(turn).collect()
}

/// Everything else.
pub(super) fn setting_engine(settings: &Settings) -> SettingEngine {
    let patience = settings.patience.max(DISCONNECTED_AFTER + FAILED_AFTER);
    // With the patience of people there are more of them than `webrtc` counts: then they come more seldom.
    let check_interval = CHECK_INTERVAL.max(patience / u32::from(u16::MAX));
    let max_checks = patience.as_millis() / check_interval.as_millis();
    let max_checks = u16::try_from(max_checks).unwrap_or(u16::MAX);
    SettingEngineBuilder::new()
        .with_multicast_dns_mode(MulticastDnsMode::Disabled)
        .with_discard_local_candidates_during_ice_restart(true)
        // The first two together are also the limit for the first checks.
        .with_ice_timeouts(
            Some(DISCONNECTED_AFTER),
            Some(patience.saturating_sub(DISCONNECTED_AFTER)),
            Some(KEEPALIVE),
        )
        .with_ice_connection_attempts(Some(check_interval), Some(max_checks))
        .with_srflx_acceptance_min_wait(Some(REFLEXIVE_WAIT))
        .with_prflx_acceptance_min_wait(Some(REFLEXIVE_WAIT))
        .with_relay_acceptance_min_wait(Some(RELAYED_WAIT))
        .with_sctp_mtu(settings.sctp_mtu.into())
        .with_sctp_max_receive_buffer_size(settings.receive_buffer.max(settings.max_message_size))
        .with_sctp_max_message_size(SctpMaxMessageSize::Bounded(settings.max_message_size))
        .build()
}
