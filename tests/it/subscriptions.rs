//! /subscriptions: definitions, positions, and reads that wait.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use libtest_mimic::Failed;
use serde_json::json;
use tempfile::TempDir;

use crate::support::subscription::{Page, Subscription, position, topics_of};
use crate::support::{
    Auditor, Rng, Server, ServerOptions, Target, TestResult, any_server, check, check_eq,
    concurrently, event, join, own_server, test, unique_topic,
};

/// Most subscriptions of one service.
const SUBSCRIPTIONS_MAX: usize = 1000;

/// Consumers read and acknowledge as they please, also what is long past, while
/// others publish. A reply that comes later never has an earlier position.
#[test(any_server)]
fn concurrent_consumers_never_move_the_position_back(target: &Target) -> TestResult {
    const CONSUMERS: usize = 3;
    const PUBLISHERS: usize = 2;
    const EVENTS: usize = 1500;
    let client = target.client();
    let topic = unique_topic("consumers");
    let subscription = Subscription::define(&client, &[&topic], "beginning")?;
    let reached = AtomicI64::new(0);
    let all_published = AtomicBool::new(false);
    let acknowledge = |cursor: i64| -> TestResult {
        let before = reached.load(Ordering::Acquire);
        let position = subscription.acknowledge(cursor)?;
        check(position >= before.max(cursor), || {
            format!("acknowledged {cursor} at {before} or later, and it is at {position}")
        })?;
        reached.fetch_max(position, Ordering::AcqRel);
        Ok(())
    };
    let consume = |number: usize| {
        let mut rng = Rng(number as u64);
        let mut processed = BTreeSet::new();
        let mut held_back = None;
        loop {
            let is_last_poll = all_published.load(Ordering::Acquire);
            let before = reached.load(Ordering::Acquire);
            let page = subscription.read(&format!("limit={}", 1 + rng.below(40)))?;
            check(page.is_after(before), || format!("read after {before}: {page:?}"))?;
            if page.events.is_empty() && is_last_poll {
                return Ok::<_, Failed>(processed);
            }
            processed.extend(page.ids());
            match rng.below(4) {
                0 => acknowledge(rng.below(page.next.unsigned_abs() + 1) as i64)?,
                1 => acknowledge(held_back.take().unwrap_or(page.next))?,
                2 => held_back = Some(page.next),
                _ => acknowledge(page.next)?,
            }
        }
    };
    let processed = std::thread::scope(|scope| {
        let consume = &consume;
        let consumers: Vec<_> =
            (0..CONSUMERS).map(|number| scope.spawn(move || consume(number))).collect();
        let published = concurrently(PUBLISHERS, |publisher| {
            let ids: Vec<String> = (0..EVENTS).map(|id| format!("{publisher}-{id}")).collect();
            let mut auditor = Auditor::default();
            ids.chunks(7).try_for_each(|ids| auditor.publish(&client, &topic, ids))?;
            Ok(auditor)
        });
        all_published.store(true, Ordering::Release);
        let consumed: Result<Vec<_>, Failed> = consumers.into_iter().map(join).collect();
        let (consumed, published) = (consumed?, published?);
        Auditor::merged(published).audit(&client, &topic)?;
        Ok::<_, Failed>(consumed)
    })?;
    let different: BTreeSet<&String> = processed.iter().flatten().collect();
    check_eq(different.len(), PUBLISHERS * EVENTS, "different events processed")?;
    let shown = subscription.delete()?;
    check_eq(shown["lag"].as_u64(), Some(0), "lag in the end")?;
    check(shown["acked_at"].is_string(), || format!("{shown:#}"))
}

/// The host is killed after a consumer has read, and after it has acknowledged.
/// What was read only comes again; what was acknowledged does not.
#[test(own_server)]
fn unacknowledged_events_are_delivered_again_after_a_kill() -> TestResult {
    const ROUNDS: usize = 3;
    const EVENTS: usize = 300;
    let topic = unique_topic("redelivery");
    let state = Arc::new(TempDir::new()?);
    let mut server = ServerOptions::on(&state).start()?;
    let ids: Vec<String> = (0..EVENTS).map(|id| id.to_string()).collect();
    server.client().publish_ids(&topic, &ids)?.expect(200)?;
    let name = Subscription::define(&server.client(), &[&topic], "beginning")?.name;
    let at = |server: &Server| Subscription { client: server.client(), name: name.clone() };
    let mut processed: Vec<String> = Vec::new();
    let mut read_again = 0;
    let mut reached = 0;
    for round in 0..ROUNDS {
        for _ in 0..=round {
            let page = at(&server).read("limit=20")?;
            processed.extend(page.ids());
            reached = at(&server).acknowledge(page.next)?;
            check_eq(reached, page.next, "the position that was acknowledged")?;
        }
        server.kill()?;
        server = ServerOptions::on(&state).start()?;
        check_eq(position(&at(&server).show()?)?, reached, "the position after a kill")?;

        let page = at(&server).read("limit=30")?;
        processed.extend(page.ids());
        server.kill()?;
        server = ServerOptions::on(&state).start()?;
        let again = at(&server).read("limit=30")?;
        check_eq(&again, &page, "what is read again")?;
        read_again += page.events.len();
    }
    loop {
        let page = at(&server).read("limit=100")?;
        check(page.is_after(reached), || format!("read after {reached}: {page:?}"))?;
        if page.events.is_empty() {
            break;
        }
        processed.extend(page.ids());
        reached = at(&server).acknowledge(page.next)?;
    }
    let different: BTreeSet<&String> = processed.iter().collect();
    check_eq(different.len(), EVENTS, "different events processed")?;
    check_eq(processed.len(), EVENTS + read_again, "events processed")
}

#[test(any_server)]
fn a_definition_can_be_repeated_and_changed(target: &Target) -> TestResult {
    let client = target.client();
    let [topic, other] = [unique_topic("defined"), unique_topic("other")];
    client.publish(format!("{}{}", event(&topic, "1"), event(&topic, "2")))?.expect(200)?;
    let subscription = Subscription::define(&client, &[&topic], "beginning")?;
    let new = subscription.show()?;
    check(new["acked_at"].is_null() && new["created_at"].is_string(), || format!("{new:#}"))?;
    check_eq(position(&new)?, 0, "where it begins")?;
    let first = subscription.read("limit=1")?;
    subscription.acknowledge(first.next)?;
    let acknowledged = subscription.show()?;

    // The start is that of the creation, whatever a repetition says.
    for definition in [
        json!({"topics": [topic], "start": "beginning"}),
        json!({"topics": [topic, topic], "start": "end"}),
        json!({"topics": [topic], "start": "0"}),
        json!({"topics": [topic]}),
    ] {
        let repeated = subscription.put(&definition)?.expect(200)?.json()?;
        check_eq(&repeated, &acknowledged, &format!("after {definition}"))?;
    }
    let changed = subscription.put(&json!({"topics": [other]}))?.expect(200)?.json()?;
    check_eq(topics_of(&changed), vec![other.as_str()], "topics")?;
    for field in ["name", "cursor", "created_at", "acked_at"] {
        check_eq(&changed[field], &acknowledged[field], field)?;
    }
    check_eq(subscription.read("")?.events, vec![], "events of the other topic")?;
    // No body, or an empty object: every topic.
    for body in ["", "{}", " \n"] {
        let every = subscription.send("PUT", "", body)?.expect(200)?.json()?;
        check_eq(topics_of(&every), vec![], "topics of a definition without any")?;
        check_eq(&every["cursor"], &acknowledged["cursor"], "cursor")?;
    }
    let page = subscription.read("limit=1000")?;
    check(page.ids().any(|id| id == "2") && page.is_after(first.next), || format!("{page:?}"))?;

    // It was not read from, so this is its end, and the name is free again.
    let name = subscription.name.clone();
    let shown = subscription.show()?;
    let last = subscription.delete()?;
    check_eq(&last["cursor"], &shown["cursor"], "cursor of what was deleted")?;
    let again = Subscription { client, name };
    for (method, below) in
        [("GET", ""), ("DELETE", ""), ("GET", "/events"), ("GET", "/events?wait=20")]
    {
        let reply = again.send(method, below, "")?.expect(404)?.json()?;
        check(reply["code"] == "subscription_not_found", || format!("{reply:#}"))?;
    }
    let reply = again.send("POST", "/ack", r#"{"cursor":"1"}"#)?.expect(404)?.json()?;
    check(reply["code"] == "subscription_not_found", || format!("{reply:#}"))?;
    let reply = again.put(&json!({"topics": [topic], "start": first.next.to_string()}))?;
    let new = reply.expect(201)?.json()?;
    check(new["acked_at"].is_null() && new["lag"] == 1, || format!("{new:#}"))?;
    check_eq(position(&again.delete()?)?, first.next, "where the new one begins")
}

/// Reads that were there before the event, and are answered with it.
#[test(any_server)]
fn a_long_poll_ends_with_the_next_event(target: &Target) -> TestResult {
    const READERS: usize = 12;
    let client = target.client();
    let [topic, other] = [unique_topic("awaited"), unique_topic("unasked")];
    let subscription = Subscription::define(&client, &[&topic], "end")?;
    let begin = position(&subscription.show()?)?;
    let mut readers = Vec::new();
    for _ in 0..READERS {
        let mut stream = client.connect()?;
        write!(
            stream,
            "GET /subscriptions/{}/events?wait=20 HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n",
            subscription.name,
            client.address()
        )?;
        readers.push(stream);
    }
    // The replies to later requests show that these are under way.
    client.get("/healthz")?.expect(200)?;
    client.publish(event(&other, "1"))?.expect(200)?;
    client.get("/healthz")?.expect(200)?;
    client.publish(event(&topic, "2"))?.expect(200)?;
    for mut reader in readers {
        let mut reply = String::new();
        reader.read_to_string(&mut reply)?;
        let (head, body) = reply.split_once("\r\n\r\n").unwrap_or((&reply, ""));
        check(head.starts_with("HTTP/1.1 200"), || reply.clone())?;
        let page = Page::of(&serde_json::from_str(body)?)?;
        check_eq(page.ids().collect::<Vec<_>>(), vec!["2".to_owned()], "what was waited for")?;
    }
    // What is there needs no waiting, and what is not there is an empty page.
    let there = subscription.read("wait=20&limit=1")?;
    check_eq(there.ids().collect::<Vec<_>>(), vec!["2".to_owned()], "what is there")?;
    check_eq(position(&subscription.show()?)?, begin, "reading does not move it")?;
    subscription.acknowledge(there.next)?;
    for query in ["wait=1", "wait=0", ""] {
        let nothing = Page { events: Vec::new(), next: there.next };
        check_eq(subscription.read(query)?, nothing, &format!("the page for {query:?}"))?;
    }
    subscription.delete().map(drop)
}

#[test(own_server)]
fn limits_subscriptions_to_1000() -> TestResult {
    const CLIENTS: usize = 8;
    let server = Server::start()?;
    let client = server.client();
    let put = |name: &str| client.send("PUT", &format!("/subscriptions/{name}"), &[], b"{}");
    let created = concurrently(CLIENTS, |number| {
        // More than there is room for; each name by one client only.
        let names = (number..SUBSCRIPTIONS_MAX + 20).step_by(CLIENTS);
        let mut created = Vec::new();
        for name in names.map(|name| format!("name-{name}")) {
            let reply = put(&name)?;
            if reply.status == 201 {
                created.push(name);
            } else {
                let problem = reply.clone().expect(409)?.json()?;
                let is_refused = problem["code"] == "too_many_subscriptions";
                check(is_refused && problem["status"] == 409, || format!("{reply:#?}"))?;
            }
        }
        Ok(created)
    })?;
    let created: Vec<String> = created.into_iter().flatten().collect();
    check_eq(created.len(), SUBSCRIPTIONS_MAX, "subscriptions created")?;
    let list = client.get("/subscriptions")?.expect(200)?.json()?;
    check_eq(list["count"].as_u64(), Some(SUBSCRIPTIONS_MAX as u64), "subscriptions listed")?;
    // One that is there can be defined again, and one that goes makes room.
    put(&created[7])?.expect(200)?;
    put("one-more")?.expect(409)?;
    let path = format!("/subscriptions/{}", created[7]);
    client.send("DELETE", &path, &[], &[])?.expect(200)?;
    put("one-more")?.expect(201)?;
    put(&created[7])?.expect(409).map(drop)
}
