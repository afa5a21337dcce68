// The SDK of CloudEvents (npm install cloudevents), and fetch.
//
// Sends     one CloudEvent a request, in binary mode, or structured (`HTTP.structured`).
// Topic     `type`, unless the path has one.
// Id        `source` and `id`, which the SDK makes (a UUID) where the program gives none.
// No reply  the program sends the same event again, as it does after 429 and 5xx: stored once.
//           The SDK's own `httpTransport` never does, and takes every status for success, so
//           with it what meets 503 is lost without a word.
// Fine time not needed.

import { CloudEvent, HTTP } from 'cloudevents';

const URL = 'http://127.0.0.1:3000/publish';
const mode = process.argv.includes('structured') ? 'structured' : 'binary';

async function send(event, attempts = 8) {
  const { headers, body } = HTTP[mode](event);
  for (let attempt = 1; ; attempt += 1) {
    const reply = await fetch(URL, { method: 'POST', headers, body }).catch(() => null);
    if (reply?.ok) return;
    if (attempt === attempts || (reply && reply.status !== 429 && reply.status < 500)) {
      throw new Error(`${event.id} was not taken: ${reply ? reply.status : 'no reply'}`);
    }
    await new Promise((resume) => setTimeout(resume, 100 * 2 ** attempt));
  }
}

for (let number = 0; number < 200; number += 1) {
  await send(new CloudEvent({
    type: `node.${mode}`,
    source: '/shop',
    id: `order-${number}`,
    data: { message: `record ${number}` },
  }));
}
