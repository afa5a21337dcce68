// splunk-logging (npm install splunk-logging).
//
// Sends     events to Splunk's HTTP event collector, `maxBatchCount` a request.
// Topic     `index`, in the metadata of an event.
// Id        of the content: the message, its time and metadata.
// No reply  it sends again, `maxRetries` times (0 unless told otherwise): stored once. A
//           status is no reason for it: what meets 503 is lost.
// Fine time milliseconds, so equal messages need something that tells them apart.

import { Logger } from 'splunk-logging';

const log = new Logger({ url: 'http://127.0.0.1:3000', token: 'any', maxRetries: 8, maxBatchCount: 50 });
log.error = (error) => console.error('not sent:', error.message);

for (let number = 0; number < 200; number += 1) {
  log.send({ message: `record ${number}`, metadata: { index: 'splunk-logging' } });
}
log.flush();
