/**
 * The newest events, of all topics or of the one that is followed.
 *
 * They are read when the counters say that there are others. What somebody
 * reads stays: a row that is opened or has the focus goes only with all rows.
 */

import { $, block, copyButton, h, say } from './dom.js';
import { numbers, time } from './format.js';
import { indent, members, values } from './json.js';
import { Reader } from './requests.js';
import { followed, topicLink } from './topics.js';

const EVENTS_MAX = 50;
const PREVIEW_CHARS_MAX = 120;
const PAYLOAD_CHARS_MAX = 100_000; // shown at once; more on demand

/** What most loggers call the line that a person reads, the first that is there. */
const LINES = ['message', 'msg', 'log', 'body'];
const LINE_PAYLOAD_CHARS_MAX = 100_000; // a longer payload is not taken apart for it

/** Rows by seq. */
const rows = new Map();
/** Whether a page was drawn: then other rows are new, and are marked. */
let isKnown = false;
let isPaused = false;
/** Whether it shows what a search found, and nothing that comes. */
let isHeld = false;
/** How many events are to be shown, now and when it was paused; `undefined` when no counter says it. */
let count;
let countAtPause;
let stats = null;

const reader = new Reader({
  part: 'Newest events',
  path: () => `/events?${new URLSearchParams({
    order: 'desc', limit: EVENTS_MAX, ...(followed !== null && { topic: followed }),
  })}`,
  draw: (text) => draw(values(members(text).get('events')).map(members)),
});

/** The counters are these now. */
export function onFrame(frame) {
  stats = frame;
  const before = count;
  count = newCount();
  drawState();
  if (!isPaused && !isHeld && (count === undefined || count !== before)) reader.want();
}

function newCount() {
  if (followed === null) return stats?.unique_processed;
  return stats?.topics.find(({ topic }) => topic === followed)?.unique_processed;
}

/** Begins anew: other events are to be shown. */
export function restart() {
  isHeld = false;
  clear('Reading the events…');
  setPaused(false);
}

/** Shows no event but those that are added, until it begins anew. */
export function hold(why) {
  isHeld = true;
  clear(why);
  setPaused(false);
}

/** Adds events below those that are shown, and says what is left to say. */
export function add(text, empty) {
  for (const event of values(members(text).get('events')).map(members)) {
    const seq = event.get('seq');
    if (rows.has(seq)) continue;
    const entry = makeRow(structuredClone(event));
    rows.set(seq, entry);
    $('feed-rows').append(entry.row);
  }
  say($('feed-empty'), rows.size > 0 ? '' : empty);
  return rows.size;
}

function clear(why) {
  reader.cancel();
  rows.clear();
  isKnown = false;
  count = newCount();
  $('feed-rows').replaceChildren();
  say($('feed-empty'), why);
  say($('feed-title'), isHeld ? 'Found events' : 'Newest events');
  $('feed-pause').hidden = isHeld;
}

function setPaused(paused) {
  isPaused = paused;
  countAtPause = count;
  say($('feed-pause'), paused ? 'Resume' : 'Pause');
  drawState();
  // The first page is shown whatever follows; pausing holds what comes after it.
  if (!paused && !isHeld) reader.want();
  else if (isKnown) reader.cancel();
}

function drawState() {
  const newer = count - countAtPause;
  say($('feed-state'), !isPaused ? '' : newer > 0 ? `Paused, ${numbers.format(newer)} newer` : 'Paused');
}

/** Draws events, newest first, each as a map of its members. */
function draw(events) {
  const present = new Set(events.map((event) => event.get('seq')));
  for (const [seq, { row, detail }] of rows) {
    row.classList.remove('new');
    if (present.has(seq) || detail() || row.contains(document.activeElement)) continue;
    row.remove();
    rows.delete(seq);
  }
  let place = $('feed-rows').firstElementChild;
  for (const event of events) {
    const seq = event.get('seq');
    const shown = rows.get(seq);
    if (shown) {
      place = (shown.detail() ?? shown.row).nextElementSibling;
      continue;
    }
    // What is cut from the page would keep all of its text in memory.
    const entry = makeRow(structuredClone(event));
    if (isKnown) entry.row.classList.add('new');
    rows.set(seq, entry);
    $('feed-rows').insertBefore(entry.row, place);
  }
  isKnown = true;
  say($('feed-empty'), rows.size > 0 ? ''
    : followed === null ? 'No event is stored.' : 'No event of this topic is stored.');
}

/** The row of an event, and below it, while it is opened, all of the event. */
function makeRow(event) {
  const string = (name) => JSON.parse(event.get(name));
  const seq = event.get('seq');
  const topic = string('topic');
  const payload = event.get('payload');
  const foreign = (text) => h('bdi', { title: text }, text);
  const cell = (label, name, ...children) => (
    h('td', { role: 'cell', class: name, 'data-label': label }, children));
  let detail = null;
  const button = h('button', { type: 'button', class: 'small', onclick: toggle });
  const row = h('tr', { role: 'row' },
    cell('Seq', 'n seq', seq),
    cell('Time', 'when', time(string('received_at'))),
    cell('Topic', 'cut', topicLink(topic, {}, foreign(topic))),
    cell('Event id', 'cut', foreign(string('event_id'))),
    cell('Source', 'cut', foreign(string('source'))),
    cell('Payload', 'payload', h('div', {},
      preview(payload), button)));

  function toggle() {
    detail?.remove();
    detail = detail ? null : h('tr', { role: 'row', class: 'detail' },
      h('td', { role: 'cell', colspan: 6 }, makeDetail(event)));
    if (detail) row.after(detail);
    label();
  }

  function label() {
    const does = detail ? 'Hide' : 'Show';
    button.textContent = does;
    button.setAttribute('aria-label', `${does} event ${seq}`);
    button.setAttribute('aria-expanded', String(detail !== null));
  }

  label();
  return { row, detail: () => detail };
}

/** A payload on one line: what it says to a person, if it does, else its JSON. */
function preview(payload) {
  const line = lineOf(payload);
  return line === null ? h('code', { dir: 'ltr' }, payload.slice(0, PREVIEW_CHARS_MAX))
    : h('bdi', { class: 'line' }, line.slice(0, PREVIEW_CHARS_MAX));
}

function lineOf(payload) {
  if (payload.length > LINE_PAYLOAD_CHARS_MAX) return null;
  if (payload.startsWith('"')) return JSON.parse(payload);
  if (!payload.startsWith('{')) return null;
  const fields = members(payload);
  const name = LINES.find((one) => fields.get(one)?.startsWith('"'));
  return name ? JSON.parse(fields.get(name)) : null;
}

function makeDetail(event) {
  const payload = event.get('payload');
  const begin = indent(payload, PAYLOAD_CHARS_MAX);
  const text = block(begin.slice(0, PAYLOAD_CHARS_MAX), 'Payload');
  const all = begin.length > PAYLOAD_CHARS_MAX && h('button', {
    type: 'button',
    class: 'small',
    onclick() {
      text.textContent = indent(payload);
      text.focus();
      all.remove();
    },
  }, `Show all of ${numbers.format(payload.length)} characters`);
  const facts = ['topic', 'event_id', 'source', 'timestamp', 'received_at'].map((name) => (
    h('div', {}, h('dt', {}, name), h('dd', {}, h('bdi', {}, JSON.parse(event.get(name)))))));
  return h('div', {}, h('dl', {}, facts), text,
    h('p', { class: 'buttons' }, copyButton('Copy payload', () => payload, { class: 'small' }), all));
}

$('feed-pause').addEventListener('click', () => setPaused(!isPaused));
