/** The chart of the last 24 hours: bars in, a drawing out, nothing kept. */

import { svg } from './dom.js';
import { compact, hours, numbers } from './format.js';

const HEIGHT = 190;
const [LEFT, RIGHT, TOP, BOTTOM] = [46, 6, 10, 24];

/** The least of 1, 2, 5, 10, 20, 50 … that makes four steps reach `most`. */
function axisStep(most) {
  const least = Math.max(1, most / 4);
  const power = 10 ** Math.floor(Math.log10(least));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= least * 0.999);
}

/** Draws bars `{from, to, stored, duplicates}`, oldest first, into an element. */
export function drawChart(place, bars) {
  // In real pixels, so that the letters keep their size on a phone.
  const width = Math.max(240, place.clientWidth);
  const highest = Math.max(1, ...bars.map((bar) => bar.stored + bar.duplicates));
  const step = axisStep(highest);
  const most = step * Math.ceil(highest / step);
  const slot = (width - LEFT - RIGHT) / bars.length;
  const gap = slot > 5 ? 1 : 0.4;
  const y = (value) => HEIGHT - BOTTOM - (value / most) * (HEIGHT - TOP - BOTTOM);
  const drawing = svg('svg', {
    role: 'img', 'aria-labelledby': 'chart-title', 'aria-describedby': 'chart-text',
    width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`,
  });
  for (let value = 0; value <= most; value += step) {
    drawing.append(
      svg('line', { class: 'grid', x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value) }),
      svg('text', { x: LEFT - 6, y: y(value) + 4, 'text-anchor': 'end' }, compact.format(value)));
  }
  const hoursApart = width < 560 ? 6 : 3;
  bars.forEach(({ from, to, stored, duplicates }, index) => {
    const x = LEFT + index * slot;
    const date = new Date(from);
    if (date.getMinutes() === 0 && date.getHours() % hoursApart === 0) {
      drawing.append(svg('line', { class: 'tick', x1: x, x2: x, y1: HEIGHT - BOTTOM, y2: HEIGHT - BOTTOM + 4 }));
      // At the edges a label would be cut.
      if (x > LEFT + 12 && x < width - 20) {
        drawing.append(svg('text', { x, y: HEIGHT - 6, 'text-anchor': 'middle' }, hours.format(from)));
      }
    }
    if (stored + duplicates === 0) return;
    const part = (name, low, high) => {
      // Few beside many are still there: a pixel is the least.
      const height = Math.max(1, y(low) - y(high));
      return svg('rect', { class: name, x: x + gap / 2, width: slot - gap, y: y(low) - height, height });
    };
    drawing.append(svg('g', { class: 'column' },
      svg('title', {}, `${hours.format(from)}–${hours.format(to)}: `
        + `${numbers.format(stored)} stored, ${numbers.format(duplicates)} duplicates`),
      svg('rect', { class: 'reach', x, width: slot, y: TOP, height: HEIGHT - TOP - BOTTOM }),
      stored > 0 && part('stored', 0, stored),
      duplicates > 0 && part('duplicates', stored, stored + duplicates)));
  });
  place.replaceChildren(drawing);
}
