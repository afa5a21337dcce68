// Publishes, and reads what it has published, with a client that
// `openapi-typescript` made: node publish_and_read.js http://127.0.0.1:3000
//
// That it compiles is half of the test: what comes back has a type that can be
// used as it is, with no cast.

import assert from 'node:assert/strict';
import createClient from 'openapi-fetch';
import type { components, paths } from './api.js';

type Event = components['schemas']['Event'];

const baseUrl = process.argv[2];
assert(baseUrl, 'usage: publish_and_read.js BASE_URL');
const client = createClient<paths>({ baseUrl });
const topic = `typescript-${process.pid}-${Date.now()}`;
const event = (id: number) => ({
  topic,
  event_id: String(id),
  source: 'openapi-typescript',
  payload: { id, nested: [null, 1.5] },
});

// Each of the shapes that a body can have.
for (const body of [event(1), [event(1), event(2)], { events: [event(3), event(4)] }]) {
  const { data, error } = await client.POST('/publish', { body });
  assert(data, JSON.stringify(error));
  assert.equal(data.accepted + data.duplicates, data.received);
}

const named = await client.POST('/publish', {
  params: { query: { results: 'all' } },
  body: [event(4), event(5)],
});
assert(named.data?.results);
const outcomes = named.data.results.map((result) => {
  // The type of each result follows from its status.
  switch (result.status) {
    case 'accepted': return `${result.event_id} is seq ${typeof result.seq}`;
    case 'rejected': return `${result.field}: ${result.detail}`;
    default: return `${result.event_id} is a ${result.status}`;
  }
});
assert.deepEqual(outcomes, ['4 is a duplicate', '5 is seq number']);

const refused = await client.POST('/publish', { body: { topic: '', event_id: '6', source: 's' } });
assert(refused.error && 'code' in refused.error);
assert.equal(refused.error.code, 'invalid_events');

// Page by page, as a reader does it.
const read: Event[] = [];
for (let after = '0'; ;) {
  const { data, error } = await client.GET('/events', { params: { query: { topic, after, limit: 2 } } });
  assert(data, JSON.stringify(error));
  if (data.count === 0) break;
  read.push(...data.events);
  after = data.next;
}
assert.deepEqual(read.map((one) => one.event_id), ['1', '2', '3', '4', '5']);
assert.deepEqual(read.map((one) => one.payload), [1, 2, 3, 4, 5].map((id) => event(id).payload));

const ahead = await client.GET('/events', { params: { query: { after: '900000000000000000' } } });
assert(ahead.error);
assert.equal(ahead.response.status, 409);
assert.equal(ahead.error.code, 'cursor_ahead');

// By a position that the service keeps.
const path = { name: topic };
const defined = await client.PUT('/subscriptions/{name}', { params: { path }, body: { topics: [topic] } });
assert.equal(defined.data?.lag, 5);
const page = await client.GET('/subscriptions/{name}/events', { params: { path, query: { limit: 3 } } });
assert(page.data);
const moved = await client.POST('/subscriptions/{name}/ack', { params: { path }, body: { cursor: page.data.next } });
assert.equal(moved.data?.lag, 2);
const removed = await client.DELETE('/subscriptions/{name}', { params: { path } });
assert.equal(removed.data?.name, topic);

const stats = await client.GET('/stats');
assert.equal(stats.data?.by_topic[topic]?.unique_processed, 5);
const health = await client.GET('/health');
assert.equal(health.data?.status, 'healthy');
const healthz = await client.GET('/healthz');
assert.equal(healthz.data?.ok, true);
console.log(`published and read ${read.length} events`);
