//! A clock that was ahead and is right again.

use serde_json::Value;

use crate::support::{
    Edit, Server, TestResult, check, check_eq, event, own_server, test, unique_topic, wait_until,
};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// The last event was stored by a clock that was a day ahead: with it, and in a
/// snapshot, the time of the next day is in the store.
#[test(own_server)]
fn a_clock_that_was_a_day_ahead_is_not_followed() -> TestResult {
    let topic = unique_topic("ahead");
    let server = Server::start()?;
    let client = server.client();
    for id in ["before", "ahead"] {
        client.publish(event(&topic, id))?.expect(200)?;
    }
    let ahead = |events: &str| {
        format!(
            "UPDATE {events} SET received_at = received_at + {DAY_MS} \
             WHERE seq = (SELECT max(seq) FROM {events})"
        )
    };
    Edit { sqlite: &ahead("event_log"), postgres: &ahead("sekali.event_log") }.apply(&server)?;

    for id in ["after", "later"] {
        client.publish(event(&topic, id))?.expect(200)?;
    }
    let ids = |path: &str| {
        let page = client.get(&format!("/events?topic={topic}{path}"))?.expect(200)?.json()?;
        let events = page["events"].as_array().cloned().unwrap_or_default();
        let id = |event: &Value| event["event_id"].as_str().map(str::to_owned);
        Ok::<_, libtest_mimic::Failed>((events.iter().filter_map(id).collect::<Vec<_>>(), page))
    };
    // The order is that of storing, whatever the clock said.
    let (all, page) = ids("")?;
    check_eq(all, ["before", "ahead", "after", "later"].map(str::to_owned).to_vec(), "stored")?;
    let times: Vec<String> = ["received_at", "timestamp"]
        .iter()
        .flat_map(|field| [0, 1, 2, 3].map(|place| page["events"][place][field].to_string()))
        .collect();
    check(times[0] <= times[2] && times[2] <= times[3] && times[3] < times[1], || {
        format!("received at {times:?}")
    })?;
    check(times[4] <= times[6] && times[6] <= times[7], || format!("timestamps {times:?}"))?;
    // A span of time finds what was received in it.
    let (first, next_day) = (times[0].trim_matches('"'), times[1].trim_matches('"'));
    let (found, _) = ids(&format!("&since={first}&until={next_day}"))?;
    check_eq(found, ["before", "after", "later"].map(str::to_owned).to_vec(), "of the span")?;
    let (found, _) = ids(&format!("&since={next_day}"))?;
    check_eq(found, vec!["ahead".to_owned()], "of the next day")?;

    wait_until("it is logged", || Ok(server.log().contains("the clock was set back").then_some(())))
}
