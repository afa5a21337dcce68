/**
 * What was stored and dropped in the last 24 hours, in bars of 15 minutes.
 *
 * What was before the page came is read from `/stats/history`; from then on the
 * bars grow with the counters. Where frames were missed it is read again.
 */

import { drawChart } from './chart.js';
import { $, h, say } from './dom.js';
import { dayAndHours, numbers, time } from './format.js';
import * as topicRates from './rates.js';
import { Reader } from './requests.js';

const BAR_MS = 15 * 60_000;
const DAY_MS = 24 * 60 * 60_000;

/** Bars in which something happened, by when they begin. */
const bars = new Map();
/** The newest counters, and those that the bars account for: `null` while they miss some. */
let newest = null;
let counted = null;
/** When the chart is to be drawn anew. */
let drawnUntil = Infinity;
let startedAt = 0;
/** The service's clock less ours, in milliseconds. */
let clockAhead = 0;

/** What was received, stored and dropped, to be shown. */
const counts = (stored, duplicates) => (
  [stored + duplicates, stored, duplicates].map((count) => numbers.format(count)));

const now = () => Date.now() + clockAhead;
/** Of a service that is older than a day the snapshots before are not kept. */
const isYoung = () => startedAt > now() - DAY_MS;
const barAt = (from) => bars.get(from) ?? { from, to: from + BAR_MS, stored: 0, duplicates: 0 };
const countersOf = ({ unique_processed, duplicate_dropped }) => (
  { stored: unique_processed, duplicates: duplicate_dropped });

const reader = new Reader({
  part: 'History',
  path: () => '/stats/history',
  draw(text) {
    const minutes = JSON.parse(text).map((one) => ({ ...one, at: Date.parse(one.minute) }));
    rebuild(minutes.map((one) => ({ at: one.at, ...countersOf(one) })));
    topicRates.rebuild(minutes.filter((one) => one.by_topic), isYoung(), clockAhead);
    draw();
  },
});

/** Reads the history of a service that first started then, its clock this much ahead of ours. */
export function read(start, ahead) {
  startedAt = start;
  clockAhead = ahead;
  reader.want();
}

/** The counters are these now; `isMissed` when others before them were not seen. */
export function onFrame(stats, isMissed) {
  newest = countersOf(stats);
  if (isMissed) counted = null;
  if (!counted) return;
  countUp(now(), counted, newest);
  counted = newest;
}

/** Nothing that was read holds any more. */
export function forget() {
  reader.cancel();
  bars.clear();
  counted = null;
  drawnUntil = Infinity;
}

/** Draws what is new: counts, or a bar, for time moves them without an event. */
export function tick() {
  if (now() >= drawnUntil) draw();
}

/**
 * Counts anew, from the counters as the first publish of each minute left them.
 *
 * Between two of these snapshots lie the rest of the first one's minute and the
 * publish that made the second, nothing else: a minute without a snapshot had
 * no publish. That one brought one event at least, so one counts for the second
 * minute, and the others for the first.
 */
function rebuild(snapshots) {
  bars.clear();
  let before = snapshots[0];
  if (before && isYoung()) countUp(before.at, { stored: 0, duplicates: 0 }, before);
  for (const next of snapshots.slice(1)) {
    const kind = next.stored > before.stored ? 'stored' : 'duplicates';
    const rest = { ...next, [kind]: Math.max(before[kind], next[kind] - 1) };
    countUp(before.at, before, rest);
    countUp(next.at, rest, next);
    before = next;
  }
  if (before) countUp(before.at, before, newest);
  counted = newest;
}

/** What counters have more than those before happened at `at`. */
function countUp(at, before, counters) {
  const bar = barAt(at - (at % BAR_MS));
  bar.stored += Math.max(0, counters.stored - before.stored);
  bar.duplicates += Math.max(0, counters.duplicates - before.duplicates);
  bars.set(bar.from, bar);
  drawnUntil = 0;
}

function draw() {
  const end = now() - (now() % BAR_MS) + BAR_MS;
  const shown = [];
  for (let from = end - DAY_MS; from < end; from += BAR_MS) shown.push(barAt(from));
  for (const from of bars.keys()) if (from < end - DAY_MS) bars.delete(from);
  drawnUntil = end;
  drawChart($('chart'), shown);
  const busy = shown.filter((bar) => bar.stored + bar.duplicates > 0);
  const sum = (kind) => busy.reduce((all, bar) => all + bar[kind], 0);
  const [received, stored, duplicates] = counts(sum('stored'), sum('duplicates'));
  say($('chart-text'), busy.length === 0 ? 'No event in the last 24 hours.'
    : `Received: ${received}, of which ${stored} were stored and ${duplicates} duplicates. A bar is 15 minutes.`);
  $('chart-rows').replaceChildren(...busy.reverse().map((bar) => h('tr', {},
    h('th', { scope: 'row' }, time(new Date(bar.from).toISOString(), dayAndHours)),
    counts(bar.stored, bar.duplicates).map((count) => h('td', { class: 'n' }, count)))));
}

new ResizeObserver(() => drawnUntil < Infinity && draw()).observe($('chart'));
