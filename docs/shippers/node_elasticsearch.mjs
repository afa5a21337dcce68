// The client of Elasticsearch, 9.x, and its `helpers.bulk` (npm install @elastic/elasticsearch).
//
// Sends     `_bulk`, `flushBytes` a request.
// Topic     `_index`.
// Id        `_id`; of the content for a document without.
// No reply  it sends again, `maxRetries` times, as it does after 502, 503 and 504 (429 it
//           drops): stored once. What was stored before is answered 200, with `noop`.
// Fine time not needed with `_id`; else a field such as `@timestamp`.

import { Client } from '@elastic/elasticsearch';

const client = new Client({ node: 'http://127.0.0.1:3000', maxRetries: 10 });
await client.helpers.bulk({
  datasource: Array.from({ length: 200 }, (_, number) => ({ message: `record ${number}` })),
  flushBytes: 2000,
  onDocument: () => ({ index: { _index: 'elasticsearch-js' } }),
});
await client.close();
