// pino with pino-loki (npm install pino pino-loki).
//
// Sends     a push of Loki in JSON: what came within `interval` seconds, a stream each line.
// Topic     the label `service_name`.
// Id        of the content: the line, its time and labels.
// No reply  it is stored; pino-loki never sends again, so what meets an outage is lost.
// Fine time pino's is in milliseconds, so equal lines get a number of their own here.

import pino from 'pino';

let lines = 0;
const log = pino(
  { mixin: () => ({ line: lines++ }) },
  pino.transport({
    target: 'pino-loki',
    options: {
      host: 'http://127.0.0.1:3000',
      labels: { service_name: 'pino-loki' },
      batching: { interval: 1 },
    },
  }),
);

for (let number = 0; number < 200; number += 1) log.info(`record ${number}`);
