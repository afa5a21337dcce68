// winston's own Http transport (npm install winston).
//
// Sends     a JSON object, and a request, for each line.
// Id        of the content, so the format below gives each line a time and a number.
// No reply  it is stored; the transport never sends again, so what meets an outage is lost.
// Fine time the format adds it: winston sends level and message alone.

import winston from 'winston';

let lines = 0;
const numbered = winston.format((info) => Object.assign(info, { pid: process.pid, line: lines++ }));
const log = winston.createLogger({
  format: winston.format.combine(winston.format.timestamp(), numbered()),
  transports: [new winston.transports.Http({ host: '127.0.0.1', port: 3000, path: '/publish/winston' })],
});
log.on('warn', (error) => console.error('not sent:', error.message));

for (let number = 0; number < 200; number += 1) log.info(`record ${number}`);
