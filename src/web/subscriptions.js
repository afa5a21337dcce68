/** The subscriptions, those with the most lag first; nothing when there are none. */

import { $, h, say } from './dom.js';
import { numbers, time } from './format.js';
import { Reader } from './requests.js';

const SHOWN_MAX = 100;
const PAUSE_MS = 5_000;

const reader = new Reader({
  part: 'Subscriptions',
  path: () => '/subscriptions',
  draw: (text) => draw(JSON.parse(text).subscriptions),
  pauseMs: PAUSE_MS,
});

/** Lag moves with the counters. An acknowledgement moves none of them, so it is looked for now and then. */
export const onFrame = () => reader.want();
setInterval(onFrame, 3 * PAUSE_MS);

function topicsOf({ topics: [first, ...others] }) {
  if (first === undefined) return 'all';
  return h('span', { title: [first, ...others].join('\n') },
    h('bdi', {}, first), others.length > 0 && ` and ${others.length} more`);
}

function draw(all) {
  $('subscriptions').hidden = all.length === 0;
  const shown = all.sort((one, other) => other.lag - one.lag).slice(0, SHOWN_MAX);
  $('subscription-rows').replaceChildren(...shown.map((subscription) => h('tr', {},
    h('th', { scope: 'row', class: 'break' }, subscription.name),
    h('td', { class: 'break' }, topicsOf(subscription)),
    h('td', { class: 'n' }, numbers.format(subscription.lag)),
    h('td', {}, subscription.acked_at ? time(subscription.acked_at) : 'never'))));
  const more = all.length - shown.length;
  say($('subscriptions-more'), more > 0 ? `${numbers.format(more)} more with less lag.` : '');
}
