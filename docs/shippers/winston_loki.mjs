// winston with winston-loki (npm install winston winston-loki).
//
// Sends     a push of Loki: protocol buffers in snappy, or JSON with `json: true`.
// Topic     the label `service_name`.
// Id        of the content: the line, its time and labels.
// No reply  it sends the same lines again a minute later, with those that came meanwhile, as
//           it does after any 4xx and 5xx, and when the program ends: stored once.
// Fine time milliseconds, so equal lines get a number of their own here.

import winston from 'winston';
import LokiTransport from 'winston-loki';

let lines = 0;
const numbered = winston.format((info) => Object.assign(info, { line: lines++ }));
const loki = new LokiTransport({
  host: 'http://127.0.0.1:3000',
  labels: { service_name: 'winston-loki' },
  interval: 1,
  onConnectionError: (error) => console.error('not sent:', error),
});
const log = winston.createLogger({ format: numbered(), transports: [loki] });

for (let number = 0; number < 200; number += 1) log.info(`record ${number}`);

// Sends what waits.
log.end();
