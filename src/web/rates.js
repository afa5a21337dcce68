/**
 * What each topic received lately, as a small drawing beside its name. The service
 * keeps no history of a topic, so it begins when the page is opened.
 */

import { svg } from './dom.js';
import { numbers } from './format.js';

const BAR_MS = 10_000;
const BARS = 60; // ten minutes
const HEIGHT = 16;

/** What was received by topic: in all as last seen, and in each bar by its number. */
const topics = new Map();
/** Whether the newest frame had every topic: then one that it lacks is new. */
let hadAll = false;

const barNow = () => Math.floor(Date.now() / BAR_MS);

/** The counters are these now; `isMissed` when nobody knows when they grew. */
export function onFrame(frame, isMissed) {
  const bar = barNow();
  for (const { topic, received } of frame.topics) {
    let known = topics.get(topic);
    if (!known) {
      known = { received: hadAll && !isMissed ? 0 : received, bars: new Map() };
      topics.set(topic, known);
    }
    const more = isMissed ? 0 : Math.max(0, received - known.received);
    if (more > 0) known.bars.set(bar, (known.bars.get(bar) ?? 0) + more);
    known.received = received;
    for (const old of known.bars.keys()) if (old <= bar - BARS) known.bars.delete(old);
  }
  hadAll = frame.topics.length === frame.topic_count;
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
      if (line === drawn) return;
      drawn = line;
      path.setAttribute('d', line);
      const sum = counts.reduce((all, count) => all + count, 0);
      title.textContent = `${numbers.format(sum)} received in the last ten minutes, `
        + `${numbers.format(most)} at most in ten seconds`;
      drawing.setAttribute('aria-label', title.textContent);
    },
  };
}
