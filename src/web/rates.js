/**
 * What each topic received in the last 24 hours, as a small drawing beside its name.
 *
 * What was before the page came is read from the history, which tells the busiest topics
 * apart every 15 minutes; from then on the bars grow with the counters.
 */

import { svg } from './dom.js';
import { numbers } from './format.js';

const BAR_MS = 15 * 60_000;
const BARS = 96; // a day
const HEIGHT = 16;

/** What was received by topic: in all as last seen, and in each bar by its number. */
const topics = new Map();
/** Whether the newest frame had every topic: then one that it lacks is new. */
let hadAll = false;
/** The service's clock less ours, in milliseconds. */
let clockAhead = 0;

const barOf = (at) => Math.floor(at / BAR_MS);
const barNow = () => barOf(Date.now() + clockAhead);

function countUp({ bars }, bar, more) {
  if (more > 0) bars.set(bar, (bars.get(bar) ?? 0) + more);
}

/** The counters are these now; `isMissed` when nobody knows when they grew. */
export function onFrame(frame, isMissed) {
  const bar = barNow();
  for (const { topic, received } of frame.topics) {
    let known = topics.get(topic);
    if (!known) {
      known = { received: hadAll && !isMissed ? 0 : received, bars: new Map() };
      topics.set(topic, known);
    }
    if (!isMissed) countUp(known, bar, received - known.received);
    known.received = received;
    for (const old of known.bars.keys()) if (old <= bar - BARS) known.bars.delete(old);
  }
  hadAll = frame.topics.length === frame.topic_count;
}

/**
 * Counts anew, from the snapshots that tell topics apart, `{at, received, by_topic}`, oldest
 * first: what one has more than the one before came after that. `isFirst` when there was
 * nothing before the first.
 */
export function rebuild(snapshots, isFirst, ahead) {
  clockAhead = ahead;
  const nothing = { at: snapshots[0]?.at, received: 0, by_topic: {} };
  const all = snapshots.length > 0 && isFirst ? [nothing, ...snapshots] : snapshots;
  for (const [topic, known] of topics) {
    known.bars.clear();
    all.forEach((before, index) => {
      const from = receivedOf(before, topic);
      const to = index + 1 < all.length ? receivedOf(all[index + 1], topic) : known.received;
      if (from !== null && to !== null) countUp(known, barOf(before.at), to - from);
    });
  }
}

/** What was received of a topic by a snapshot; `null` if it does not tell. */
function receivedOf(snapshot, topic) {
  if (Object.hasOwn(snapshot.by_topic, topic)) return snapshot.by_topic[topic];
  snapshot.isWhole ??= Object.values(snapshot.by_topic).reduce((sum, count) => sum + count, 0) === snapshot.received;
  return snapshot.isWhole ? 0 : null;
}

/** Nothing that was seen holds any more. */
export function forget() {
  topics.clear();
  hadAll = false;
}

/** A drawing, and what draws it anew for a topic. */
export function sparkline() {
  const path = svg('path');
  const title = svg('title');
  const drawing = svg('svg', {
    class: 'spark', role: 'img', viewBox: `0 0 ${BARS} ${HEIGHT}`, preserveAspectRatio: 'none',
  }, title, path);
  let drawn = null;
  return {
    drawing,
    draw(topic) {
      const bars = topics.get(topic)?.bars ?? new Map();
      const first = barNow() - BARS + 1;
      const counts = Array.from({ length: BARS }, (_, index) => bars.get(first + index) ?? 0);
      const most = Math.max(1, ...counts);
      // Few beside many are still there.
      const height = (count) => (count > 0 ? Math.max(1, (count / most) * (HEIGHT - 1)) : 0);
      const line = counts.map((count, index) => (
        count > 0 && `M${index} ${HEIGHT}v${-height(count).toFixed(1)}h.8V${HEIGHT}z`)).filter(Boolean).join('');
      const sum = counts.reduce((all, count) => all + count, 0);
      // One bar looks the same whatever its count.
      if (drawn === `${sum} ${line}`) return;
      drawn = `${sum} ${line}`;
      path.setAttribute('d', line);
      title.textContent = `${numbers.format(sum)} received in the last 24 hours, `
        + `${numbers.format(most)} at most in 15 minutes`;
      drawing.setAttribute('aria-label', title.textContent);
    },
  };
}
