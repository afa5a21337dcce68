use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use libtest_mimic::Failed;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::{Client, Reply};
use crate::harness::{
    Outcome, Server, Spread, Start, Target, at_once, batch, check, check_eq, event, join,
    unique_topic,
};
use crate::registry::{any_server, own_server, test};
use crate::tally::Tally;

/// Most subscriptions of one service.
const SUBSCRIPTIONS_MAX: usize = 1000;

#[test(any_server)]
fn the_lag_is_what_pages_count(target: &Target) -> Outcome {
    lag(&target.client(), &[])
}

#[test(own_server)]
fn the_lag_of_every_topic_is_what_pages_count() -> Outcome {
    Start::default().serve(|server| lag(&server.client(), &[&[]]))
}

/// A subscription as its workers use it.
struct Named {
    client: Client,
    name: String,
}

impl Named {
    /// Defines a new one.
    fn define(client: &Client, topics: &[&str], start: &str) -> Result<Self, Failed> {
        let named = Named { client: client.clone(), name: unique_topic("worker") };
        let reply = named.put(&json!({"topics": topics, "start": start}))?.expect(201)?;
        check_eq(topics_of(&reply.json()?), topics.to_vec(), "topics as they were given")?;
        Ok(named)
    }

    fn send(&self, method: &str, below: &str, body: &str) -> Result<Reply, Failed> {
        let path = format!("/subscriptions/{}{below}", self.name);
        Ok(self.client.send(method, &path, &[], body.as_bytes())?)
    }

    fn put(&self, definition: &Value) -> Result<Reply, Failed> {
        self.send("PUT", "", &definition.to_string())
    }

    fn show(&self) -> Result<Value, Failed> {
        self.send("GET", "", "")?.expect(200)?.json()
    }

    /// The next page, whose events are in order and go up to `next`.
    fn read(&self, query: &str) -> Result<Page, Failed> {
        let reply = self.send("GET", &format!("/events?{query}"), "")?.expect(200)?;
        Page::of(&reply.json()?).map_err(|failed| {
            format!("{} in {reply:#?}", failed.message().unwrap_or_default()).into()
        })
    }

    /// The position after this acknowledgement.
    fn acknowledge(&self, cursor: i64) -> Result<i64, Failed> {
        // Both ways to write it are understood.
        let cursor = if cursor % 2 == 0 { json!(cursor) } else { json!(cursor.to_string()) };
        let body = json!({ "cursor": cursor }).to_string();
        position(&self.send("POST", "/ack", &body)?.expect(200)?.json()?)
    }

    fn delete(self) -> Result<Value, Failed> {
        self.send("DELETE", "", "")?.expect(200)?.json()
    }
}

/// The position in a reply that shows a subscription.
fn position(shown: &Value) -> Result<i64, Failed> {
    cursor(&shown["cursor"])
}

/// A cursor, which is text that workers give back as it is.
fn cursor(text: &Value) -> Result<i64, Failed> {
    let seq = text.as_str().and_then(|text| text.parse().ok());
    seq.ok_or_else(|| format!("{text} is no cursor").into())
}

fn topics_of(shown: &Value) -> Vec<&str> {
    shown["topics"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

#[derive(Debug, PartialEq)]
struct Page {
    events: Vec<Value>,
    next: i64,
}

impl Page {
    fn of(page: &Value) -> Result<Self, Failed> {
        let events = page["events"].as_array().ok_or("no events")?.clone();
        let next = cursor(&page["next"])?;
        check_eq(page["count"].as_u64(), Some(events.len() as u64), "count")?;
        let page = Page { events, next };
        let seqs: Vec<i64> = page.events.iter().filter_map(|event| event["seq"].as_i64()).collect();
        let in_order = seqs.is_sorted_by(|one, next| one < next);
        check(in_order && seqs.last().is_none_or(|last| *last == page.next), || {
            format!("seqs {seqs:?} before {next}")
        })?;
        Ok(page)
    }

    fn ids(&self) -> impl Iterator<Item = String> {
        let ids = self.events.iter().filter_map(|event| event["event_id"].as_str());
        ids.map(str::to_owned)
    }

    /// All events come after `position`.
    fn is_after(&self, position: i64) -> bool {
        self.next >= position
            && self.events.first().is_none_or(|first| first["seq"].as_i64() > Some(position))
    }
}

/// Workers read and acknowledge as they please, also what is long past, while
/// others publish. A reply that comes later never tells of an earlier position.
#[test(any_server)]
fn concurrent_consumers_never_move_the_position_back(target: &Target) -> Outcome {
    const WORKERS: usize = 3;
    const PUBLISHERS: usize = 2;
    const EVENTS: usize = 1500;
    let client = target.client();
    let topic = unique_topic("side-by-side");
    let named = Named::define(&client, &[&topic], "beginning")?;
    let reached = AtomicI64::new(0);
    let all_published = AtomicBool::new(false);
    let acknowledge = |cursor: i64| -> Outcome {
        let before = reached.load(Ordering::Acquire);
        let position = named.acknowledge(cursor)?;
        check(position >= before.max(cursor), || {
            format!("acknowledged {cursor} at {before} or later, and it is at {position}")
        })?;
        reached.fetch_max(position, Ordering::AcqRel);
        Ok(())
    };
    let work = |number: usize| {
        let mut spread = Spread(number as u64);
        let mut processed = BTreeSet::new();
        let mut held_back = None;
        loop {
            let is_last_look = all_published.load(Ordering::Acquire);
            let before = reached.load(Ordering::Acquire);
            let page = named.read(&format!("limit={}", 1 + spread.below(40)))?;
            check(page.is_after(before), || format!("read after {before}: {page:?}"))?;
            if page.events.is_empty() && is_last_look {
                return Ok::<_, Failed>(processed);
            }
            processed.extend(page.ids());
            match spread.below(4) {
                0 => acknowledge(spread.below(page.next.unsigned_abs() + 1) as i64)?,
                1 => acknowledge(held_back.take().unwrap_or(page.next))?,
                2 => held_back = Some(page.next),
                _ => acknowledge(page.next)?,
            }
        }
    };
    let processed = std::thread::scope(|scope| {
        let work = &work;
        let workers: Vec<_> =
            (0..WORKERS).map(|number| scope.spawn(move || work(number))).collect();
        let published = at_once(PUBLISHERS, |publisher| {
            let ids: Vec<String> = (0..EVENTS).map(|id| format!("{publisher}-{id}")).collect();
            let mut tally = Tally::default();
            ids.chunks(7).try_for_each(|ids| tally.publish(&client, &topic, ids))?;
            Ok(tally)
        });
        all_published.store(true, Ordering::Release);
        let worked: Result<Vec<_>, Failed> = workers.into_iter().map(join).collect();
        let (worked, published) = (worked?, published?);
        Tally::sum(published).audit(&client, &topic)?;
        Ok::<_, Failed>(worked)
    })?;
    let different: BTreeSet<&String> = processed.iter().flatten().collect();
    check_eq(different.len(), PUBLISHERS * EVENTS, "different events processed")?;
    let shown = named.delete()?;
    check_eq(shown["lag"].as_u64(), Some(0), "lag in the end")?;
    check(shown["acked_at"].is_string(), || format!("{shown:#}"))
}

/// The host is killed after a worker has read, and after it has acknowledged.
/// What was read only comes again; what was acknowledged does not.
#[test(own_server)]
fn unacknowledged_events_are_delivered_again_after_a_kill() -> Outcome {
    const ROUNDS: usize = 3;
    const EVENTS: usize = 300;
    let topic = unique_topic("dying");
    let state = Arc::new(TempDir::new()?);
    let mut server = Start::on(&state).start()?;
    let ids: Vec<String> = (0..EVENTS).map(|id| id.to_string()).collect();
    server.client().publish_ids(&topic, &ids)?.expect(200)?;
    let name = Named::define(&server.client(), &[&topic], "beginning")?.name;
    let worker = |server: &Server| Named { client: server.client(), name: name.clone() };
    let mut processed: Vec<String> = Vec::new();
    let mut read_again = 0;
    let mut reached = 0;
    for round in 0..ROUNDS {
        for _ in 0..=round {
            let page = worker(&server).read("limit=20")?;
            processed.extend(page.ids());
            reached = worker(&server).acknowledge(page.next)?;
            check_eq(reached, page.next, "the position that was acknowledged")?;
        }
        server.kill()?;
        server = Start::on(&state).start()?;
        check_eq(position(&worker(&server).show()?)?, reached, "the position after a kill")?;

        let page = worker(&server).read("limit=30")?;
        processed.extend(page.ids());
        server.kill()?;
        server = Start::on(&state).start()?;
        let again = worker(&server).read("limit=30")?;
        check_eq(&again, &page, "what is read again")?;
        read_again += page.events.len();
    }
    loop {
        let page = worker(&server).read("limit=100")?;
        check(page.is_after(reached), || format!("read after {reached}: {page:?}"))?;
        if page.events.is_empty() {
            break;
        }
        processed.extend(page.ids());
        reached = worker(&server).acknowledge(page.next)?;
    }
    let different: BTreeSet<&String> = processed.iter().collect();
    check_eq(different.len(), EVENTS, "different events processed")?;
    check_eq(processed.len(), EVENTS + read_again, "events processed")
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
fn lag(client: &Client, more: &[&[&str]]) -> Outcome {
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
            subscriptions.push((Named::define(client, set, start)?, set));
        }
    }
    let exact = |of: &str| {
        subscriptions.iter().try_for_each(|(named, set)| {
            let shown = named.show()?;
            let counted = count_after(client, set, position(&shown)?)?;
            check_eq(shown["lag"].as_u64(), Some(counted as u64), &format!("lag {of}: {shown:#}"))
        })
    };
    exact("at the beginning")?;
    let (publishing, acknowledging) = std::thread::scope(|scope| {
        let acknowledging = scope.spawn(|| {
            for (named, _) in subscriptions.iter().step_by(2) {
                for limit in [1, 25, 3] {
                    named.acknowledge(named.read(&format!("limit={limit}"))?.next)?;
                }
            }
            Ok(())
        });
        let publishing = at_once(PUBLISHERS, |publisher| {
            let mut spread = Spread(publisher as u64);
            for request in 0..REQUESTS {
                let topic = &topics[spread.below(3) as usize];
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

    for (named, _) in &subscriptions {
        let before = position(&named.show()?)?;
        let page = named.read("limit=10")?;
        let shown = named.put(&json!({"topics": [b, c]}))?.expect(200)?.json()?;
        check_eq(position(&shown)?, before, "the position after new topics")?;
        let counted = count_after(client, &[b, c], before)?;
        check_eq(shown["lag"].as_u64(), Some(counted as u64), "lag with new topics")?;
        let reached = named.acknowledge(page.next)?;
        let counted = count_after(client, &[b, c], reached)?;
        check_eq(
            named.show()?["lag"].as_u64(),
            Some(counted as u64),
            "lag with new topics, later",
        )?;
    }
    let list = client.get("/subscriptions")?.expect(200)?.json()?;
    let listed = list["subscriptions"].as_array().map(Vec::as_slice).unwrap_or_default();
    check_eq(list["count"].as_u64(), Some(listed.len() as u64), "count of the list")?;
    let by_name = listed.is_sorted_by(|one, next| one["name"].as_str() < next["name"].as_str());
    check(by_name, || format!("not in the order of names: {list:#}"))?;
    for (named, _) in subscriptions {
        let in_list = listed.iter().find(|one| one["name"] == *named.name);
        check_eq(in_list, Some(&named.show()?), "the subscription in the list")?;
        named.delete()?;
    }
    Ok(())
}

#[test(any_server)]
fn a_definition_can_be_repeated_and_changed(target: &Target) -> Outcome {
    let client = target.client();
    let [topic, other] = [unique_topic("defined"), unique_topic("other")];
    client.publish(format!("{}{}", event(&topic, "1"), event(&topic, "2")))?.expect(200)?;
    let named = Named::define(&client, &[&topic], "beginning")?;
    let new = named.show()?;
    check(new["acked_at"].is_null() && new["created_at"].is_string(), || format!("{new:#}"))?;
    check_eq(position(&new)?, 0, "where it begins")?;
    let first = named.read("limit=1")?;
    named.acknowledge(first.next)?;
    let acknowledged = named.show()?;

    // The start is that of the creation, whatever a repetition says.
    for definition in [
        json!({"topics": [topic], "start": "beginning"}),
        json!({"topics": [topic, topic], "start": "end"}),
        json!({"topics": [topic], "start": "0"}),
        json!({"topics": [topic]}),
    ] {
        let repeated = named.put(&definition)?.expect(200)?.json()?;
        check_eq(&repeated, &acknowledged, &format!("after {definition}"))?;
    }
    let changed = named.put(&json!({"topics": [other]}))?.expect(200)?.json()?;
    check_eq(topics_of(&changed), vec![other.as_str()], "topics")?;
    for field in ["name", "cursor", "created_at", "acked_at"] {
        check_eq(&changed[field], &acknowledged[field], field)?;
    }
    check_eq(named.read("")?.events, vec![], "events of the other topic")?;
    // No body, or an empty object: every topic.
    for body in ["", "{}", " \n"] {
        let every = named.send("PUT", "", body)?.expect(200)?.json()?;
        check_eq(topics_of(&every), vec![], "topics of a definition without any")?;
        check_eq(&every["cursor"], &acknowledged["cursor"], "cursor")?;
    }
    let page = named.read("limit=1000")?;
    check(page.ids().any(|id| id == "2") && page.is_after(first.next), || format!("{page:?}"))?;

    // It was not read from, so this is its end, and the name is free again.
    let name = named.name.clone();
    let shown = named.show()?;
    let last = named.delete()?;
    check_eq(&last["cursor"], &shown["cursor"], "cursor of what was deleted")?;
    let again = Named { client, name };
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
fn a_long_poll_ends_with_the_next_event(target: &Target) -> Outcome {
    const READERS: usize = 12;
    let client = target.client();
    let [topic, other] = [unique_topic("awaited"), unique_topic("unasked")];
    let named = Named::define(&client, &[&topic], "end")?;
    let begin = position(&named.show()?)?;
    let mut readers = Vec::new();
    for _ in 0..READERS {
        let mut stream = client.connect()?;
        write!(
            stream,
            "GET /subscriptions/{}/events?wait=20 HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n",
            named.name,
            client.address()
        )?;
        readers.push(stream);
    }
    // The replies to later requests show that these were taken on.
    client.get("/healthz")?.expect(200)?;
    client.publish(event(&other, "1"))?.expect(200)?;
    client.get("/healthz")?.expect(200)?;
    client.publish(event(&topic, "2"))?.expect(200)?;
    for mut reader in readers {
        let mut said = String::new();
        reader.read_to_string(&mut said)?;
        let (head, body) = said.split_once("\r\n\r\n").unwrap_or((&said, ""));
        check(head.starts_with("HTTP/1.1 200"), || said.clone())?;
        let page = Page::of(&serde_json::from_str(body)?)?;
        check_eq(page.ids().collect::<Vec<_>>(), vec!["2".to_owned()], "what was waited for")?;
    }
    // What is there needs no waiting, and what is not there is an empty page.
    let there = named.read("wait=20&limit=1")?;
    check_eq(there.ids().collect::<Vec<_>>(), vec!["2".to_owned()], "what is there")?;
    check_eq(position(&named.show()?)?, begin, "reading does not move it")?;
    named.acknowledge(there.next)?;
    for query in ["wait=1", "wait=0", ""] {
        let nothing = Page { events: Vec::new(), next: there.next };
        check_eq(named.read(query)?, nothing, &format!("the page for {query:?}"))?;
    }
    named.delete().map(drop)
}

#[test(own_server)]
fn limits_subscriptions_to_1000() -> Outcome {
    const CLIENTS: usize = 8;
    let server = Server::start()?;
    let client = server.client();
    let put = |name: &str| client.send("PUT", &format!("/subscriptions/{name}"), &[], b"{}");
    let created = at_once(CLIENTS, |number| {
        // More than there is room for; each name by one client only.
        let names = (number..SUBSCRIPTIONS_MAX + 20).step_by(CLIENTS);
        let mut created = Vec::new();
        for name in names.map(|name| format!("name-{name}")) {
            let reply = put(&name)?;
            if reply.status == 201 {
                created.push(name);
            } else {
                let problem = reply.clone().expect(409)?.json()?;
                let is_told = problem["code"] == "too_many_subscriptions";
                check(is_told && problem["status"] == 409, || format!("{reply:#?}"))?;
            }
        }
        Ok(created)
    });
    let created: Vec<String> =
        created.map_err(|failed| server.explain(failed))?.into_iter().flatten().collect();
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

/// A reader of one topic, and one of all of them, go through what is there and
/// what comes meanwhile.
#[test(any_server)]
fn twenty_thousand_events_page_by_page(target: &Target) -> Outcome {
    const EVENTS: usize = 10_000;
    const PUBLISHERS: usize = 4;
    let client = target.client();
    let topic = unique_topic("paging");
    let page = client.get("/events?order=desc&limit=1")?.expect(200)?.json()?;
    let begin = page["events"][0]["seq"].as_i64().unwrap_or_default();
    let ids: Vec<String> = (0..EVENTS).map(|id| format!("before-{id}")).collect();
    client.publish(batch(&topic, &ids))?.expect(200)?;
    let all_published = AtomicBool::new(false);
    let read = |query: &str| {
        let mut events = Vec::new();
        let mut after = begin;
        let mut full_pages = 0;
        loop {
            let is_last_look = all_published.load(Ordering::Acquire);
            let path = format!("/events?{query}limit=1000&after={after}");
            let page = Page::of(&client.get(&path)?.expect(200)?.json()?)?;
            check(page.is_after(after), || format!("{path}: {:?}", page.events.first()))?;
            if page.events.is_empty() && is_last_look {
                check(full_pages >= EVENTS / 1000, || format!("{full_pages} full pages"))?;
                return Ok::<_, Failed>(events);
            }
            full_pages += usize::from(page.events.len() == 1000);
            after = page.next;
            events.extend(page.events.into_iter().filter(|event| event["topic"] == *topic));
        }
    };
    let published: Mutex<BTreeSet<String>> = Mutex::new(ids.into_iter().collect());
    let of_topic = format!("topic={topic}&");
    let reads = std::thread::scope(|scope| {
        let read = &read;
        let readers = [of_topic.as_str(), ""].map(|query| scope.spawn(move || read(query)));
        let publishing = at_once(PUBLISHERS, |publisher| {
            let mut spread = Spread(publisher as u64);
            let ids: Vec<String> =
                (0..EVENTS / PUBLISHERS).map(|id| format!("{publisher}-{id}")).collect();
            let mut rest = ids.as_slice();
            while !rest.is_empty() {
                let (now, later) = rest.split_at((1 + spread.below(60) as usize).min(rest.len()));
                client.publish_ids(&topic, now)?.expect(200)?;
                rest = later;
            }
            published.lock().map_err(|_| "a client panicked")?.extend(ids);
            Ok(())
        });
        all_published.store(true, Ordering::Release);
        let reads: Result<Vec<_>, Failed> = readers.into_iter().map(join).collect();
        publishing.and(reads)
    })?;
    let published = published.into_inner().map_err(|_| "a client panicked")?;
    check_eq(published.len(), 2 * EVENTS, "events published")?;
    for events in reads {
        let ids = events.iter().filter_map(|event| event["event_id"].as_str());
        let different: BTreeSet<String> = ids.map(str::to_owned).collect();
        check_eq(events.len(), 2 * EVENTS, "events read")?;
        check(different == published, || {
            let missing: Vec<_> = published.difference(&different).take(10).collect();
            format!("{} different events; missing are {missing:?}…", different.len())
        })?;
    }
    Ok(())
}
