//! What a request was answered: the outcome of each of its events.

use serde::{Deserialize, Serialize};

use crate::wire::{Outcome, PublishReply};

/// How a request was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// With the outcome of each of its deliveries.
    Outcomes(Vec<Outcome>),
    /// With something that contradicts itself or the request, in words.
    Contradiction(String),
    /// Not at all, or with an error.
    None,
}

/// The outcome of each event of a request, out of its reply.
///
/// # Errors
///
/// If the reply contradicts itself or the request, or leaves some of them out.
pub fn outcomes(sent: usize, reply: &PublishReply) -> Result<Vec<Outcome>, String> {
    let PublishReply { received, accepted, duplicates, conflicts, rejected, .. } = *reply;
    if reply.results_omitted > 0 {
        let (named, omitted) = (reply.results.len(), reply.results_omitted);
        return Err(format!("it names {named} events and leaves {omitted} out"));
    }
    let mut outcomes = vec![Outcome::Accepted; sent];
    for result in &reply.results {
        let Some(outcome) = outcomes.get_mut(result.index) else {
            return Err(format!("result for index {} of {sent} events", result.index));
        };
        *outcome = result.status;
    }
    let count = |wanted: Outcome| outcomes.iter().filter(|o| **o == wanted).count() as u64;
    let named = (count(Outcome::Accepted), count(Outcome::Conflict), count(Outcome::Rejected));
    let dropped = count(Outcome::Duplicate) + named.1;
    if received != accepted + duplicates
        || received + rejected != sent as u64
        || named != (accepted, conflicts, rejected)
        || dropped != duplicates
    {
        return Err(format!(
            "{sent} events sent; received {received}, accepted {accepted}, duplicates \
             {duplicates}, conflicts {conflicts}, rejected {rejected}; named in its results: \
             {} accepted, {dropped} duplicates, {} conflicts, {} rejected",
            named.0, named.1, named.2
        ));
    }
    Ok(outcomes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::EventResult;

    fn reply(outcomes: &[Outcome]) -> PublishReply {
        let count = |wanted| outcomes.iter().filter(|o| **o == wanted).count() as u64;
        let (rejected, conflicts) = (count(Outcome::Rejected), count(Outcome::Conflict));
        let results = outcomes.iter().enumerate().filter(|(_, o)| **o != Outcome::Accepted);
        let result = |(index, status): (_, &_)| EventResult {
            index,
            status: *status,
            field: None,
            detail: None,
        };
        PublishReply {
            received: outcomes.len() as u64 - rejected,
            accepted: count(Outcome::Accepted),
            duplicates: count(Outcome::Duplicate) + conflicts,
            conflicts,
            rejected,
            results: results.map(result).collect(),
            results_omitted: 0,
        }
    }

    #[test]
    fn replies_that_do_not_add_up() {
        let good = reply(&[Outcome::Accepted, Outcome::Duplicate]);
        assert!(outcomes(2, &good).is_ok());
        assert!(outcomes(3, &good).is_err());
        assert!(outcomes(2, &PublishReply { accepted: 2, ..good.clone() }).is_err());
        assert!(outcomes(2, &PublishReply { results: Vec::new(), ..good.clone() }).is_err());
        assert!(outcomes(1, &good).is_err());
        let short = PublishReply { results: Vec::new(), results_omitted: 1, ..good };
        assert_eq!(outcomes(2, &short), Err("it names 0 events and leaves 1 out".to_owned()));
    }
}
