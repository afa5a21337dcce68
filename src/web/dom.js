/**
 * Elements, for both pages: made, written, folded, copied from.
 *
 * What comes out of events and descriptions is foreign text. It becomes text
 * and the values of attributes here, and nothing in these pages writes HTML.
 */

export const $ = (id) => document.getElementById(id);

const isThere = (value) => (value ?? false) !== false;

function fill(element, attributes = {}, children = []) {
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith('on')) element.addEventListener(key.slice(2), value);
    else if (isThere(value)) element.setAttribute(key, value === true ? '' : value);
  }
  element.append(...children.flat(Infinity).filter(isThere));
  return element;
}

/** An element. `null`, `undefined` and `false` are left out; children may be lists of children. */
export const h = (name, attributes, ...children) => (
  fill(document.createElement(name), attributes, children));

/** The same for drawings. */
export const svg = (name, attributes, ...children) => (
  fill(document.createElementNS('http://www.w3.org/2000/svg', name), attributes, children));

export const code = (text) => h('code', {}, text);

/** Text as it is; with a label where it stands by itself. */
export const block = (text, label = null) => (
  h('pre', { tabindex: '0', dir: 'ltr', 'aria-label': label, role: label && 'group' }, text));

/** Details whose content is made when they are opened for the first time. */
export function fold(summary, content, isOpen = false) {
  const details = h('details', { open: isOpen }, h('summary', {}, summary));
  const unfold = () => {
    if (details.open && details.childElementCount === 1) details.append(content());
  };
  details.addEventListener('toggle', unfold);
  unfold();
  return details;
}

/** Writes only what differs, so that a selection in an unchanged text survives. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Says it to those who listen. */
export function announce(text) {
  $('announcer').textContent = text;
}

/** A button that copies what `text` returns. */
export function copyButton(label, text, attributes = {}) {
  let timer = 0;
  const button = h('button', { type: 'button', ...attributes }, label);
  button.addEventListener('click', async () => {
    const outcome = await copy(text()) ? 'Copied' : 'Not allowed';
    button.focus();
    button.textContent = outcome;
    announce(outcome);
    clearTimeout(timer);
    timer = setTimeout(() => { button.textContent = label; }, 2_000);
  });
  return button;
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // The clipboard is for secure contexts; plain http on another host is none.
    const area = h('textarea', { class: 'unseen', 'aria-hidden': 'true' });
    area.value = text;
    document.body.append(area);
    area.select();
    const copied = document.execCommand('copy');
    area.remove();
    return copied;
  }
}
