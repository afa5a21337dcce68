/**
 * The table of topics, and the topic that is followed. The address says which
 * that is: it can be kept, sent, and gone back from.
 */

import { $, h, say } from './dom.js';
import { numbers } from './format.js';
import { sparkline } from './rates.js';

/** The topic that is followed, or `null`. */
export let followed;

let onFollow;
/** The newest frame of counters. */
let stats = null;
/** Rows by topic, so that a row keeps its place in the page and the focus that it may have. */
const rows = new Map();

/** Calls `listener` when another topic is followed, and at once. */
export function start(listener) {
  onFollow = listener;
  $('topic-filter').addEventListener('input', () => stats && draw(stats));
  $('topic-form').addEventListener('submit', (submit) => {
    submit.preventDefault();
    if ($('topic-filter').value) follow($('topic-filter').value);
  });
  $('unfollow').addEventListener('click', (click) => onClick(click, null));
  window.addEventListener('popstate', onAddress);
  onAddress();
}

const addressOf = (topic) => (topic === null ? '/' : `/?${new URLSearchParams({ topic })}`);

/** A link that follows a topic. */
export function topicLink(topic, attributes, text) {
  return h('a', { href: addressOf(topic), onclick: (click) => onClick(click, topic), ...attributes }, text);
}

/** Links stay links: with a modifier key they open in another tab. */
function onClick(click, topic) {
  if (click.ctrlKey || click.metaKey || click.shiftKey || click.button !== 0) return;
  click.preventDefault();
  follow(topic);
}

function follow(topic) {
  if (topic === followed) return;
  history.pushState(null, '', addressOf(topic));
  onAddress();
}

function onAddress() {
  const topic = new URLSearchParams(location.search).get('topic') || null;
  // A jump within the page is a change of the address, too.
  if (topic === followed) return;
  followed = topic;
  document.title = followed === null ? 'Sekali' : `${followed} – Sekali`;
  $('following').hidden = followed === null;
  say($('following-topic'), followed ?? '');
  if (stats) draw(stats);
  onFollow();
}

function makeRow(topic) {
  const link = topicLink(topic, { title: topic, dir: 'auto' }, topic);
  const cells = [0, 1].map(() => h('td', { class: 'n' }));
  const conflicts = h('span', { class: 'conflicts' });
  const rate = sparkline();
  const row = h('tr', {}, h('th', { scope: 'row' }, link, conflicts, rate.drawing), cells);
  return { row, link, cells, conflicts, rate };
}

/** Time moves the drawings without an event. */
export function tick() {
  for (const [topic, { rate }] of rows) rate.draw(topic);
}

/** Draws the topics of a frame. */
export function draw(frame) {
  stats = frame;
  const filter = $('topic-filter').value.trim().toLowerCase();
  const body = $('topic-rows');
  // Whoever is about to click on a row, or stands on one, wants it to stay where it is.
  const isHeld = $('topics').matches(':hover, :focus-within');
  const shown = new Set();
  let place = body.firstElementChild;
  for (const counts of stats.topics) {
    const { topic } = counts;
    if (!topic.toLowerCase().includes(filter)) continue;
    shown.add(topic);
    let entry = rows.get(topic);
    if (!entry) {
      entry = makeRow(topic);
      rows.set(topic, entry);
      body.insertBefore(entry.row, isHeld ? null : place);
    } else if (!isHeld && entry.row !== place) {
      body.insertBefore(entry.row, place);
    } else if (!isHeld) {
      place = place.nextElementSibling;
    }
    say(entry.cells[0], numbers.format(counts.received));
    say(entry.cells[1], numbers.format(counts.duplicate_dropped));
    say(entry.conflicts, counts.conflicts ? `conflicts: ${numbers.format(counts.conflicts)}` : '');
    entry.rate.draw(topic);
    if (topic === followed) entry.link.setAttribute('aria-current', 'true');
    else entry.link.removeAttribute('aria-current');
  }
  for (const [topic, { row }] of rows) {
    if (shown.has(topic)) continue;
    row.remove();
    rows.delete(topic);
  }
  const more = stats.topic_count - stats.topics.length;
  say($('topics-more'), [
    stats.topic_count === 0 ? 'No topic yet.' : shown.size === 0 && 'None of the topics here has this in its name.',
    more > 0 && `${numbers.format(more)} more topics with fewer events.`,
  ].filter(Boolean).join(' '));
}
