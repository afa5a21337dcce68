/**
 * A search in the events, of all topics or of the one that is followed. A page
 * of it looks only so far, so it goes on when somebody asks for more.
 */

import { $, say } from './dom.js';
import * as feed from './feed.js';
import { numbers, time } from './format.js';
import { ask } from './requests.js';
import { followed } from './topics.js';

const EVENTS_MAX = 50;

/** What is looked for: the parameters, and how far it came; `null` when nothing is. */
let search = null;

export function start() {
  $('search').addEventListener('submit', (submit) => {
    submit.preventDefault();
    begin();
  });
  $('search-span').addEventListener('change', () => {
    $('search-times').hidden = $('search-span').value !== 'between';
  });
  $('search-further').addEventListener('click', goOn);
  $('search-end').addEventListener('click', () => {
    end();
    $('search-text').focus();
  });
}

/** Another topic is followed: the same is looked for in it. */
export function restart() {
  if (search) begin();
  else feed.restart();
}

/** Shows what comes again. */
export function end() {
  search?.asking?.abort();
  search = null;
  $('search').reset();
  $('search-times').hidden = true;
  $('search-found').hidden = true;
  feed.restart();
}

function begin() {
  const text = $('search-text').value;
  const times = timesOf($('search-span').value);
  if (!text && Object.keys(times).length === 0) return end();
  search?.asking?.abort();
  search = {
    looked: 0,
    parameters: {
      order: 'desc', limit: EVENTS_MAX, ...times,
      ...(text && { contains: text }), ...(followed !== null && { topic: followed }),
    },
  };
  feed.hold('Searching…');
  say($('search-state'), 'Searching…');
  $('search-found').hidden = false;
  $('search-further').hidden = true;
  return goOn();
}

/** From when on, and before when. */
function timesOf(span) {
  const at = (id) => $(id).value && new Date($(id).value).toISOString();
  const [since, until] = span === 'between' ? [at('search-since'), at('search-until')]
    : [span && new Date(Date.now() - 60_000 * span).toISOString(), ''];
  return { ...(since && { since }), ...(until && { until }) };
}

/** Reads one more page. */
async function goOn() {
  const current = search;
  if (!current || current.asking) return;
  current.asking = new AbortController();
  const further = $('search-further');
  further.setAttribute('aria-disabled', 'true');
  try {
    const text = await ask(`/events?${new URLSearchParams(current.parameters)}`, { signal: current.asking.signal });
    if (search !== current) return;
    const page = JSON.parse(text);
    // Without a text each event is one that is found, and an empty page is the end.
    const searched = page.searched ?? {
      events: page.count, received_at: page.events.at(-1)?.received_at, complete: page.count === 0,
    };
    current.parameters.after = page.next;
    current.looked += searched.events;
    current.backTo = searched.received_at ?? current.backTo;
    const found = feed.add(text, searched.complete ? 'Nothing was found.' : 'Nothing was found so far.');
    draw(current, found, searched.complete);
  } catch (error) {
    if (search !== current) return;
    say($('search-state'), `Search: ${error.message}`);
    further.hidden = false;
  } finally {
    current.asking = null;
    further.removeAttribute('aria-disabled');
  }
}

function draw({ looked, backTo }, found, isComplete) {
  const words = [`${numbers.format(found)} found, ${numbers.format(looked)} events looked at`];
  if (isComplete) words.push(', and there are no more.');
  else if (backTo) words.push(', back to ', time(backTo), '.');
  $('search-state').replaceChildren(...words);
  // The focus must not be lost with the button.
  if (isComplete && document.activeElement === $('search-further')) $('search-end').focus();
  $('search-further').hidden = isComplete;
}
