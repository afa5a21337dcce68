//! The lag of a subscription, held against the pages of its topics.

use libtest_mimic::Failed;
use serde_json::json;

use crate::support::subscription::{Page, Subscription, position};
use crate::support::{
    Client, Rng, Server, Target, TestResult, any_server, check, check_eq, concurrently, join,
    own_server, test, unique_topic,
};

#[test(any_server)]
fn the_lag_is_what_pages_count(target: &Target) -> TestResult {
    lag(&target.client(), &[])
}

#[test(own_server)]
fn the_lag_of_every_topic_is_what_pages_count() -> TestResult {
    let server = Server::start()?;
    lag(&server.client(), &[&[]])
}

/// How many events of these topics, of every topic if there are none, pages
/// have after `cursor`.
fn count_after(client: &Client, topics: &[&str], cursor: i64) -> Result<usize, Failed> {
    let every = topics.is_empty().then(String::new);
    let named = topics.iter().map(|topic| format!("topic={topic}&"));
    let mut count = 0;
    for query in every.into_iter().chain(named) {
        let mut after = cursor;
        loop {
            let path = format!("/events?{query}limit=1000&after={after}");
            let page = Page::of(&client.get(&path)?.expect(200)?.json()?)?;
            check(page.is_after(after), || format!("{path}: {:?}", page.events.first()))?;
            if page.events.is_empty() {
                break;
            }
            count += page.events.len();
            after = page.next;
        }
    }
    Ok(count)
}

/// Subscriptions of one topic, of several, and of `more`, from here and there:
/// some acknowledge while others publish.
fn lag(client: &Client, more: &[&[&str]]) -> TestResult {
    const PUBLISHERS: usize = 6;
    const REQUESTS: usize = 30;
    let topics = [unique_topic("lag-a"), unique_topic("lag-b"), unique_topic("lag-c")];
    let [a, b, c] = [&topics[0], &topics[1], &topics[2]].map(String::as_str);
    let never = unique_topic("lag-never");
    for topic in &topics {
        let ids: Vec<String> = (0..50).map(|id| format!("before-{id}")).collect();
        client.publish_ids(topic, &ids)?.expect(200)?;
    }
    let middle = client.get(&format!("/events?topic={b}&limit=20"))?.expect(200)?.json()?;
    let middle = middle["next"].as_str().unwrap_or_default();
    let sets: [&[&str]; 4] = [&[a], &[a, b], &[a, b, c, &never], &[&never]];
    let mut subscriptions = Vec::new();
    for set in sets.into_iter().chain(more.iter().copied()) {
        for start in ["beginning", "end", middle] {
            subscriptions.push((Subscription::define(client, set, start)?, set));
        }
    }
    let exact = |of: &str| {
        subscriptions.iter().try_for_each(|(subscription, set)| {
            let shown = subscription.show()?;
            let counted = count_after(client, set, position(&shown)?)?;
            check_eq(shown["lag"].as_u64(), Some(counted as u64), &format!("lag {of}: {shown:#}"))
        })
    };
    exact("at the beginning")?;
    let (publishing, acknowledging) = std::thread::scope(|scope| {
        let acknowledging = scope.spawn(|| {
            for (subscription, _) in subscriptions.iter().step_by(2) {
                for limit in [1, 25, 3] {
                    subscription.acknowledge(subscription.read(&format!("limit={limit}"))?.next)?;
                }
            }
            Ok(())
        });
        let publishing = concurrently(PUBLISHERS, |publisher| {
            let mut rng = Rng(publisher as u64);
            for request in 0..REQUESTS {
                let topic = &topics[rng.below(3) as usize];
                // Some of them are there already, some are sent by others too.
                let ids = [
                    format!("{publisher}-{request}"),
                    format!("before-{request}"),
                    format!("shared-{request}"),
                ];
                client.publish_ids(topic, &ids)?.expect(200)?;
            }
            Ok(())
        });
        (publishing, join(acknowledging))
    });
    publishing?;
    acknowledging?;
    exact("after concurrent publishes")?;

    for (subscription, _) in &subscriptions {
        let before = position(&subscription.show()?)?;
        let page = subscription.read("limit=10")?;
        let shown = subscription.put(&json!({"topics": [b, c]}))?.expect(200)?.json()?;
        check_eq(position(&shown)?, before, "the position after new topics")?;
        let counted = count_after(client, &[b, c], before)?;
        check_eq(shown["lag"].as_u64(), Some(counted as u64), "lag with new topics")?;
        let reached = subscription.acknowledge(page.next)?;
        let counted = count_after(client, &[b, c], reached)?;
        check_eq(
            subscription.show()?["lag"].as_u64(),
            Some(counted as u64),
            "lag with new topics, later",
        )?;
    }
    let list = client.get("/subscriptions")?.expect(200)?.json()?;
    let listed = list["subscriptions"].as_array().map(Vec::as_slice).unwrap_or_default();
    check_eq(list["count"].as_u64(), Some(listed.len() as u64), "count of the list")?;
    let by_name = listed.is_sorted_by(|one, next| one["name"].as_str() < next["name"].as_str());
    check(by_name, || format!("not in the order of names: {list:#}"))?;
    for (subscription, _) in subscriptions {
        let in_list = listed.iter().find(|one| one["name"] == *subscription.name);
        check_eq(in_list, Some(&subscription.show()?), "the subscription in the list")?;
        subscription.delete()?;
    }
    Ok(())
}
