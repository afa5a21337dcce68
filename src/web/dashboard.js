/**
 * The dashboard. One stream of counters drives it: each frame is drawn, and
 * tells the parts of the page what has become old and is to be read anew.
 */

import { $, announce, copyButton, say } from './dom.js';
import * as feed from './feed.js';
import { numbers, rates, shares, time } from './format.js';
import * as history from './history.js';
import * as publish from './publish.js';
import * as topicRates from './rates.js';
import { Reader } from './requests.js';
import * as search from './search.js';
import { follow } from './stream.js';
import * as subscriptions from './subscriptions.js';
import * as topics from './topics.js';

const RATE_SECONDS = 5; // the rate is the mean of these
const ANNOUNCE_PAUSE_MS = 30_000;

const STATES = {
  connecting: 'Connecting…', live: 'Live', reconnecting: 'Reconnecting…', paused: 'Paused while hidden',
};

/** The newest frame of counters. */
let stats = null;
/** When the service first started; `NaN`, which equals nothing, if it went before that was read. */
let startedAt = null;
/** What was received at which moment, oldest first, as far back as the rate needs it. */
let samples = [];
let announcedAt = -Infinity;

/** What no frame tells: the age of the service, and its clock. */
const service = new Reader({
  part: 'Service',
  path: () => '/stats',
  draw(text) {
    const { started_at, uptime_seconds, version, by_key } = JSON.parse(text);
    const before = startedAt;
    startedAt = Date.parse(started_at);
    if (before !== null && before !== startedAt) startOver();
    $('service').replaceChildren(`Sekali ${version}, first started `, time(started_at),
      by_key ? '' : ', open to everybody who reaches it');
    history.read(startedAt, startedAt + 1_000 * uptime_seconds - Date.now());
  },
});

function onState(state) {
  $('state').dataset.state = state;
  say($('state-text'), STATES[state]);
  if (state === 'live') return;
  if (state !== 'connecting') startedAt ??= NaN;
  samples = [];
  drawRate();
}

function onFrame(frame, isFirst) {
  const before = stats;
  const isMissed = isFirst && JSON.stringify(frame) !== JSON.stringify(before);
  stats = frame;
  if (frame.received < before?.received) startOver();
  samples.push({ at: performance.now(), received: frame.received });
  drawTotals();
  topicRates.onFrame(frame, isFirst);
  topics.draw(frame);
  $('start').hidden = frame.received + frame.rejected > 0;
  if (frame.received !== before?.received) announceTotals();
  if (isMissed) service.want();
  history.onFrame(frame, isMissed);
  feed.onFrame(frame);
  subscriptions.onFrame();
}

/** The service has another store: nothing that was read holds. */
function startOver() {
  samples = [];
  history.forget();
  topicRates.forget();
  search.end();
  service.want();
}

function rate() {
  if (samples.length === 0) return null;
  const end = performance.now();
  const begin = end - RATE_SECONDS * 1_000;
  // The newest of those before the window says what there was when it began.
  while (samples.length > 1 && samples[1].at <= begin) samples.shift();
  // A stream that has just begun is measured over its own age, one second at least.
  const seconds = Math.min(RATE_SECONDS, Math.max(1, (end - samples[0].at) / 1_000));
  return (samples.at(-1).received - samples[0].received) / seconds;
}

function drawRate() {
  const value = rate();
  say($('rate'), value === null ? '–' : rates.format(value));
}

function drawTotals() {
  for (const name of ['received', 'unique_processed', 'duplicate_dropped', 'conflicts', 'rejected']) {
    say($(name), numbers.format(stats[name]));
  }
  say($('share'), stats.received > 0
    ? `${shares.format(stats.duplicate_dropped / stats.received)} of all received` : '');
  drawRate();
}

/** Those who listen hear of the numbers now and then, not of each. */
function announceTotals() {
  if (performance.now() - announcedAt < ANNOUNCE_PAUSE_MS) return;
  announcedAt = performance.now();
  announce(`${numbers.format(stats.received)} events received, `
    + `${numbers.format(stats.unique_processed)} stored, `
    + `${numbers.format(stats.duplicate_dropped)} duplicates`);
}

const example = '{"topic": "user.login", "event_id": "evt-001", "source": "curl", "payload": {"user_id": "user-123"}}';
$('curl').textContent = `curl -X POST ${location.origin}/publish -d '${example}'`;
$('curl').parentElement.after(copyButton('Copy', () => $('curl').textContent));
publish.start();
search.start();
topics.start(search.restart);
follow({ onState, onFrame });
setInterval(() => {
  if (document.hidden) return;
  drawRate();
  history.tick();
  topics.tick();
}, 1_000);
