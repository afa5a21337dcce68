/** How an operation is called: as a curl line, and by a form that changes it and shows the reply. */

import { block, copyButton, fold, h } from './dom.js';
import { indent } from './json.js';
import { withKey } from './key.js';
import { exampleText, examplesOf, flatten, isArray } from './openapi.js';

const REPLY_CHARS_MAX = 200_000;

export class Call {
  constructor(operation) {
    this.operation = operation;
    this.bodies = operation.body?.content ?? {};
    this.accepts = [...new Set(operation.responses.filter(([status]) => status.startsWith('2'))
      .flatMap(([, { content = {} }]) => Object.keys(content)))];
    /** What is given, by the name of the field; the form changes it. */
    this.given = new Map(operation.parameters.filter(({ required }) => required).map((parameter) => (
      [parameter, String(examplesOf(parameter)[0]?.[1] ?? '')])));
    this.chooseMedia(Object.keys(this.bodies)[0]);
  }

  chooseMedia(media) {
    this.given.set('media', media);
    const example = media && examplesOf(this.bodies[media])[0];
    this.given.set('body', example ? exampleText(media, example[1]) : '');
  }

  view() {
    this.curl = h('code');
    this.drawCurl();
    return [
      h('div', { class: 'command' },
        block(this.curl, 'curl command'), copyButton('Copy', () => this.curl.textContent)),
      fold('Try it', () => this.form()),
    ];
  }

  request() {
    const { operation: { method, path, parameters }, given } = this;
    const query = new URLSearchParams();
    const headers = {};
    let filled = path;
    for (const parameter of parameters) {
      const text = given.get(parameter);
      const { name, in: place } = parameter;
      if (!text) continue;
      if (place === 'path') filled = filled.replace(`{${name}}`, encodeURIComponent(text));
      else if (place === 'header') headers[name] = text;
      else if (isArray(parameter)) text.split('\n').filter(Boolean).forEach((line) => query.append(name, line));
      else if (place === 'query') query.append(name, text);
    }
    const body = given.get('body') || undefined;
    if (body) headers['content-type'] = given.get('media');
    if (given.get('accept')) headers.accept = given.get('accept');
    const url = location.origin + [filled, String(query)].filter(Boolean).join('?');
    return [url, { method, headers, body }];
  }

  drawCurl() {
    const [url, { method, headers, body }] = this.request();
    const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;
    this.curl.textContent = [
      'curl',
      method === 'HEAD' ? '-I' : method !== 'GET' && `-X ${method}`,
      this.accepts.includes('text/event-stream') && '-N',
      quote(url),
      ...Object.entries(headers).map(([name, value]) => `-H ${quote(`${name}: ${value}`)}`),
      body && `--data-raw ${quote(body)}`,
    ].filter(Boolean).join(' ');
  }

  /** A field of the form; with `choices` one to choose from. */
  field(key, label, { choices, rows, required, changed }) {
    const id = `${this.operation.id}-${label.replace(/\W+/g, '-')}`;
    const control = choices ? h('select', {}, choices.map((choice) => h('option', {}, choice)))
      : h(rows ? 'textarea' : 'input', { rows, autocomplete: 'off', spellcheck: 'false' });
    control.id = id;
    control.required = Boolean(required);
    control.value = this.given.get(key) ?? '';
    control.addEventListener('input', () => {
      this.given.set(key, control.value);
      changed?.(control.value);
      this.drawCurl();
    });
    return h('div', { class: 'field' }, h('label', { for: id }, label), control);
  }

  form() {
    const fields = this.operation.parameters.map((parameter) => {
      const { name, in: place, schema, required } = parameter;
      const flat = Object(flatten(schema));
      const choices = flat.enum ?? (flat.type === 'boolean' && ['true', 'false']);
      const several = isArray(parameter);
      return this.field(parameter, `${name} (${place}${several ? ', one a line' : ''}${required ? ', required' : ''})`, {
        choices: choices && ['', ...choices.map(String)], rows: several && '2', required,
      });
    });
    if (this.accepts.length > 1) fields.push(this.field('accept', 'Accept', { choices: ['', ...this.accepts] }));
    if (this.given.get('media')) {
      const body = this.field('body', 'Body', { rows: '8' });
      fields.push(this.field('media', 'Media type of the body', {
        choices: Object.keys(this.bodies),
        changed: (media) => {
          this.chooseMedia(media);
          body.querySelector('textarea').value = this.given.get('body');
        },
      }), body);
    }
    this.stop = h('button', { type: 'button', hidden: true, onclick: () => this.abort.abort() }, 'Stop');
    this.note = h('p', { role: 'status' });
    this.reply = h('div');
    return h('form', {
      class: 'inside try',
      onsubmit: (submit) => {
        submit.preventDefault();
        this.send();
      },
    }, fields, h('div', { class: 'buttons' }, h('button', { class: 'main' }, 'Send'), this.stop), this.note, this.reply);
  }

  /** Sends it, and shows the reply while it comes in: that of a stream has no end. */
  async send() {
    this.abort?.abort();
    const abort = new AbortController();
    this.abort = abort;
    const began = performance.now();
    let status = '';
    const tell = (text) => {
      if (this.abort === abort) this.note.textContent = `${status}${text}`;
    };
    tell('Sending…');
    this.stop.hidden = false;
    this.reply.replaceChildren();
    try {
      const [url, options] = this.request();
      const reply = await fetch(url, withKey({ ...options, signal: abort.signal, cache: 'no-store' }));
      status = `${reply.status} ${reply.statusText} after ${Math.round(performance.now() - began)} ms`;
      tell('');
      const text = document.createTextNode('');
      const headers = [...reply.headers].map(([name, value]) => `${name}: ${value}`).join('\n');
      this.reply.append(fold('Headers', () => block(headers, 'Headers'), true), block(text, 'Body'));
      const reader = reply.body?.pipeThrough(new TextDecoderStream()).getReader();
      for (let part = await reader?.read(); part && !part.done; part = await reader.read()) {
        text.appendData(part.value.slice(0, REPLY_CHARS_MAX - text.length));
        if (text.length === REPLY_CHARS_MAX) return tell(`, of which the first ${REPLY_CHARS_MAX} characters are shown`);
      }
      if (/[/+]json/.test(reply.headers.get('content-type'))) text.data = indent(text.data);
    } catch (error) {
      tell(error.name === 'AbortError' ? ', stopped' : ` The connection broke: ${error.message}`);
    } finally {
      if (this.abort === abort) this.stop.hidden = true;
      // The rest of a reply that is too long is not wanted.
      abort.abort();
    }
  }
}
