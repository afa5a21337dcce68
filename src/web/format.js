/** Numbers and times as the reader's language and zone have them. */

import { h } from './dom.js';

const number = (options) => new Intl.NumberFormat(undefined, options);
const date = (options) => new Intl.DateTimeFormat(undefined, options);

export const numbers = number();
export const rates = number({ maximumFractionDigits: 1 });
export const shares = number({ style: 'percent', maximumFractionDigits: 1 });
export const compact = number({ notation: 'compact', maximumFractionDigits: 1 });

const clock = date({ timeStyle: 'medium' });
const dateAndClock = date({ dateStyle: 'medium', timeStyle: 'medium' });
export const hours = date({ hour: '2-digit', minute: '2-digit' });
export const dayAndHours = date({ weekday: 'short', hour: '2-digit', minute: '2-digit' });

/** A time in the reader's zone; the exact one stays readable in the title. */
export function time(exact, format = null) {
  const at = new Date(exact);
  const isToday = at.toDateString() === new Date().toDateString();
  return h('time', { datetime: exact, title: exact },
    (format ?? (isToday ? clock : dateAndClock)).format(at));
}
