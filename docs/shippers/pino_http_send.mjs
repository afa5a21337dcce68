// pino with pino-http-send (npm install pino pino-http-send).
//
// Sends     {"logs": [...]}, a batch of `batchSize` lines a request.
// Id        of the content: the line, and which equal line of its batch it is.
// No reply  it sends again, five times, a second apart, as it does after any 4xx and 5xx,
//           and then drops the batch: stored once.
// Fine time pino's is in milliseconds; `isoTimeNano` has more.

import pino from 'pino';
import { createWriteStream } from 'pino-http-send';

const log = pino(
  { timestamp: pino.stdTimeFunctions.isoTimeNano },
  createWriteStream({ url: 'http://127.0.0.1:3000/publish/pino', batchSize: 50, timeout: 1000 }),
);

for (let number = 0; number < 200; number += 1) log.info(`record ${number}`);
