// The SDK of CloudEvents (npm install cloudevents).
//
// Sends     one CloudEvent a request, in binary mode, or structured (`Mode.STRUCTURED`).
// Topic     `type`, unless the path has one.
// Id        `source` and `id`, which the SDK makes (a UUID) where the program gives none.
// No reply  the SDK does not send again: the program does, with the same event. Stored once.
// Fine time not needed.

import { CloudEvent, emitterFor, httpTransport, Mode } from 'cloudevents';

const structured = process.argv.includes('structured');
const emit = emitterFor(httpTransport('http://127.0.0.1:3000/publish'),
  { mode: structured ? Mode.STRUCTURED : Mode.BINARY });

async function send(event, attempts = 8) {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await emit(event);
    } catch (error) {
      if (attempt === attempts) throw error;
      await new Promise((resume) => setTimeout(resume, 100 * 2 ** attempt));
    }
  }
}

for (let number = 0; number < 200; number += 1) {
  await send(new CloudEvent({
    type: structured ? 'node.structured' : 'node.binary',
    source: '/shop',
    id: `order-${number}`,
    data: { message: `record ${number}` },
  }));
}
