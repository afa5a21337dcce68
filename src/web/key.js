/**
 * The key of whoever looks at the page, where the service asks for one. It is kept
 * for the tab, and goes with requests to this service alone.
 */

import { h, say } from './dom.js';

const KEPT_AS = 'sekali-key';
const PAGES = ['/', '/docs'];

let key = sessionStorage.getItem(KEPT_AS);
/** The dialog that asks for a key, while it does. */
let asking = null;

/** The options of a request, with the key if there is one. */
export function withKey({ headers, ...options } = {}) {
  return { ...options, headers: { ...headers, ...(key && { authorization: `Bearer ${key}` }) } };
}

/** A reply of the service; one without a key, or with a wrong one, is asked for again with one that is asked for. */
export async function fetchWithKey(path, options = () => ({})) {
  for (;;) {
    const used = key;
    const reply = await fetch(path, withKey({ cache: 'no-store', ...options() }));
    if (reply.status !== 401) return reply;
    const problem = await reply.json().catch(() => ({}));
    // Another request may have asked meanwhile.
    if (used === key) await (asking ??= ask(used && problem.detail));
  }
}

/**
 * Follows a link with the key, which no link has by itself. A page asks with it when it is
 * there; what is data is asked for here, and shown as text.
 */
async function followLink(click) {
  const link = click.target.closest?.('a[href^="/"]');
  const isPlain = !click.defaultPrevented && click.button === 0
    && !(click.ctrlKey || click.metaKey || click.shiftKey || click.altKey);
  if (!key || !link || !isPlain || PAGES.includes(link.pathname)) return;
  click.preventDefault();
  const reply = await fetchWithKey(link.href).catch(() => null);
  // Without a reply the browser tells why, as it does for any link.
  location.assign(reply ? URL.createObjectURL(new Blob([await reply.blob()], { type: 'text/plain;charset=utf-8' })) : link.href);
}

document.addEventListener('click', followLink);

/** Asks for a key; `wrong` says what is wrong with the one before. */
function ask(wrong) {
  const input = h('input', {
    id: 'key', type: 'password', autocomplete: 'current-password', spellcheck: 'false', required: true, 'aria-describedby': 'key-wrong',
  });
  const note = h('p', { id: 'key-wrong', class: 'wrong', role: 'alert' });
  say(note, wrong ?? '');
  const dialog = h('dialog', { class: 'panel', 'aria-labelledby': 'key-title' },
    h('h2', { id: 'key-title' }, 'This service asks for a key'),
    h('form', { method: 'dialog' },
      h('div', { class: 'field' }, h('label', { for: 'key' }, 'Key, kept for this tab'), input, note),
      h('button', { class: 'main' }, 'Go on')));
  document.body.append(dialog);
  // There is nothing to see without one.
  dialog.addEventListener('cancel', (cancel) => cancel.preventDefault());
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener('close', () => {
      key = input.value.trim();
      sessionStorage.setItem(KEPT_AS, key);
      asking = null;
      dialog.remove();
      resolve();
    });
  });
}
