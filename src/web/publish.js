/** The form that publishes one event, and tells what came of it. */

import { $, h, say } from './dom.js';
import { members, values } from './json.js';
import { Refusal, ask } from './requests.js';

const FIELDS = ['topic', 'event_id', 'source', 'payload'];

/** What came of an event, by its status: the look, the title, the words. */
const OUTCOMES = {
  accepted: (seq) => ['good', 'Accepted',
    `and on disk, with seq ${seq}. Publish it again: it will be a duplicate.`],
  duplicate: () => ['known', 'Duplicate.',
    'This event is stored already, with the same content. It was counted, and not stored again.'],
  conflict: () => ['bad', 'Conflict.',
    'This id is stored in this topic with other content. The first content stays.'],
};

const valueOf = (name) => $(`p-${name}`).value;

/** A UUID; as good a number where there is none, for `randomUUID` is for secure contexts. */
const newId = () => crypto.randomUUID?.() ?? crypto.getRandomValues(new BigUint64Array(2)).join('-');

/** Says what is wrong with a field; nothing, when nothing is. */
function mark(name, wrong = '') {
  say($(`e-${name}`), wrong);
  if (wrong) $(`p-${name}`).setAttribute('aria-invalid', 'true');
  else $(`p-${name}`).removeAttribute('aria-invalid');
}

/** A new element each time, so that the same words are read out again. */
function show([look, title, text]) {
  $('outcome').replaceChildren(h('p', { class: `outcome ${look}` }, h('strong', {}, title), ` ${text}`));
}

async function publish() {
  FIELDS.forEach((name) => mark(name));
  const payload = valueOf('payload').trim();
  try {
    if (payload) JSON.parse(payload);
  } catch (error) {
    mark('payload', `This is not JSON: ${error.message}`);
    $('p-payload').focus();
    return show(['bad', 'Not sent.', 'The payload is not JSON.']);
  }
  const fields = FIELDS.slice(0, 3).map((name) => `"${name}":${JSON.stringify(valueOf(name))}`);
  // The payload goes out as it was typed, every digit of it.
  if (payload) fields.push(`"payload":${payload}`);
  try {
    const text = await ask('/publish?results=all', {
      method: 'POST', headers: { 'content-type': 'application/json' }, body: `{${fields.join()}}`,
    });
    const [result] = values(members(text).get('results')).map(members);
    const status = JSON.parse(result.get('status'));
    show(OUTCOMES[status]?.(result.get('seq')) ?? ['bad', `${status}.`, text]);
  } catch (error) {
    const errors = error.errors ?? [];
    const [known, others] = [true, false].map((is) => errors.filter(({ field }) => FIELDS.includes(field) === is));
    for (const { field, detail } of known) mark(field, detail);
    show(['bad', error instanceof Refusal ? 'Refused.' : 'No reply.',
      [error.message, ...others.map(({ field, detail }) => `${field}: ${detail}`)].join(' ')]);
    $('publish').querySelector('[aria-invalid]')?.focus();
  }
}

export function start() {
  $('p-event_id').value = newId();
  $('new-id').addEventListener('click', () => {
    $('p-event_id').value = newId();
    mark('event_id');
  });
  const button = $('publish').querySelector('[type=submit]');
  $('publish').addEventListener('submit', async (submit) => {
    submit.preventDefault();
    // One at a time, or the outcome of one would stand for another.
    if (button.hasAttribute('aria-disabled')) return;
    button.setAttribute('aria-disabled', 'true');
    await publish().finally(() => button.removeAttribute('aria-disabled'));
  });
}
