//! `qanahctl offer`: makes an offer to be carried to a peer by hand.

use std::io::{self, IsTerminal};

use qanah_proto::v1::{OfferRequest, OfferResponse};

use super::pairing::{self, GATHERING, Input};
use crate::client::{Sockets, Trouble, ask};
use crate::find::{self, Found};
use crate::output::{Outcome, prompt};
use crate::text::{escape, long_age};

/// Longest lifetime, in seconds: a day.
const LONGEST: u32 = 86_400;

/// The arguments of `offer`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The tunnel; needed when there are several
    #[arg(short, long, value_name = "NAME")]
    tunnel: Option<String>,

    /// The peer: its name, the beginning of its public key, or its address in the tunnel. Without
    /// it the offer is one text for all peers
    peer: Option<String>,

    /// How long the offer is open: 15m, 1h, 1d or a number of seconds [default: 1h]
    #[arg(long, value_name = "TIME", value_parser = lifetime)]
    lifetime: Option<u32>,
}

/// Makes the offer; on a terminal, waits for the answer as well.
pub(crate) async fn run(args: Args, sockets: &Sockets) -> Outcome {
    match offer(args, sockets).await {
        Ok(outcome) => outcome,
        Err(troubles) => troubles.into(),
    }
}

async fn offer(args: Args, sockets: &Sockets) -> Result<Outcome, Vec<Trouble>> {
    let found = find::tunnel(sockets, args.tunnel.as_deref()).await?;
    let request = OfferRequest {
        tunnel: found.tunnel.name.clone(),
        peer: args.peer,
        lifetime_seconds: args.lifetime,
    };
    let answer = ask(&found.socket, GATHERING, |mut daemon| {
        let request = request.clone();
        async move { daemon.offer(request).await.map(tonic::Response::into_inner) }
    });
    let made = answer.await.map_err(|failed| vec![failed.trouble])?;
    let peers: Vec<_> = made.peers.iter().map(|peer| escape(peer)).collect();
    let lifetime = long_age(made.lifetime_seconds.into());
    let about = format!("Offer for {}, open for {lifetime}", peers.join(", "));
    pairing::print(&made.text, &about).map_err(|trouble| vec![trouble])?;
    if io::stdout().is_terminal() && io::stdin().is_terminal() {
        return converse(&found, &made).await.map_err(|trouble| vec![trouble]);
    }
    let name = &found.tunnel.name;
    prompt(&format!("Then give me the answer: qanahctl accept --tunnel {name} ANSWER-FILE"));
    Ok(Outcome::default())
}

/// Takes answers until every peer has answered, or the person has had enough.
async fn converse(found: &Found, made: &OfferResponse) -> Result<Outcome, Trouble> {
    let mut input = Input::terminal();
    let mut outcome = Outcome::default();
    let mut missing = made.peers.clone();
    while !missing.is_empty() {
        let question = match missing.as_slice() {
            [one] => format!("Send it to {one} whole, and paste the answer here"),
            all => format!("Send it to {} whole, and paste each answer here", all.join(", ")),
        };
        let Some(text) = input.next(&question)? else {
            let name = &found.tunnel.name;
            prompt(&format!("The offer stays open: qanahctl accept --tunnel {name}"));
            break;
        };
        match pairing::accept(found, &text).await {
            Ok(peer) => {
                prompt(&format!("The answer of {peer} is good; connecting"));
                let followed = pairing::follow(found, &peer).await;
                outcome.troubles.extend(followed.troubles);
                missing.retain(|name| *name != peer);
            }
            Err(failed) => pairing::again(&input, failed)?,
        }
    }
    Ok(outcome)
}

/// Reads "90", "90s", "15m", "1h" or "1d".
fn lifetime(text: &str) -> Result<u32, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor = match unit {
        "" | "s" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err("the units are s, m, h and d, as in 15m".into()),
    };
    let seconds = number.parse::<u32>().ok().and_then(|number| number.checked_mul(factor));
    seconds
        .filter(|seconds| (1..=LONGEST).contains(seconds))
        .ok_or_else(|| "expected a time of at most a day, such as 15m, 1h or 3600".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_have_units_and_a_limit() {
        let good = ["1", "90s", "15m", "1h", "24h", "1d"].map(|text| lifetime(text).unwrap());
        assert_eq!(good, [1, 90, 900, 3600, 86_400, 86_400]);
        for bad in ["", "0", "h", "-1", "1.5h", "2d", "1w", "99999999999", "1é"] {
            assert!(lifetime(bad).is_err(), "{bad}");
        }
    }
}
