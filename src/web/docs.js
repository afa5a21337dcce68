/**
 * The API reference: `/openapi.json` as a page, with a form for each operation.
 *
 * It knows OpenAPI 3.1, and nothing of this service. What it reads becomes
 * elements and text, never HTML.
 */

const METHODS = ['get', 'post', 'put', 'patch', 'delete', 'head', 'options', 'trace'];
/** Parameters that OpenAPI wants ignored: other parts of the description stand for them. */
const OWN_HEADERS = ['accept', 'content-type', 'authorization'];
const REPLY_CHARS_MAX = 200_000;
/** How deep a schema is unfolded; what lies below is made when it is opened, so it may be endless. */
const OPEN_LEVELS = 2;

let api = {};

const $ = (id) => document.getElementById(id);

/** An element; attributes that are `null` or `false` are left out, text is never markup. */
function h(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith('on')) element.addEventListener(key.slice(2), value);
    else if (value != null && value !== false) element.setAttribute(key, value === true ? '' : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child));
  return element;
}

/** Details whose content is made when they are opened for the first time. */
function fold(summary, content, isOpen = false) {
  const details = h('details', { open: isOpen }, h('summary', {}, summary));
  const fill = () => {
    if (details.open && details.childElementCount === 1) details.append(content());
  };
  details.addEventListener('toggle', fill);
  fill();
  return details;
}

const code = (text) => h('code', {}, text);
const block = (text, label = null) => h('pre', { tabindex: '0', 'aria-label': label, role: label && 'group' }, text);

// ---------------------------------------------------------------- Markdown

const INLINE = /`([^`]+)`|\*\*([^*]+)\*\*|\[([^\]]+)\]\(([^)\s]+)\)/g;

function inline(text) {
  const parts = [];
  let at = 0;
  for (const match of text.matchAll(INLINE)) {
    const [all, literal, strong, label, target] = match;
    parts.push(text.slice(at, match.index));
    if (literal) parts.push(code(literal));
    else if (strong) parts.push(h('strong', {}, inline(strong)));
    else if (/^(https?:|\/|#)/.test(target)) parts.push(h('a', { href: target }, inline(label)));
    else parts.push(label);
    at = match.index + all.length;
  }
  return [...parts, text.slice(at)];
}

/** The Markdown that descriptions use: paragraphs, lists, fenced code, and what `inline` knows. */
function markdown(text = '') {
  // Every other piece is between fences.
  return h('div', { class: 'prose' }, text.split(/^```.*\n?/m).map((piece, index) => {
    if (index % 2 === 1) return block(piece.trimEnd());
    return piece.split(/\n\s*\n/).filter((part) => part.trim()).map((part) => (
      /^\s*[-*] /.test(part)
        ? h('ul', {}, part.split(/^\s*[-*] /m).slice(1).map((item) => h('li', {}, inline(item))))
        : h('p', {}, inline(part.replace(/^#+ /, '')))));
  }));
}

// ----------------------------------------------------------------- schemas

/** What a `$ref` names, together with what stands beside it. */
function resolve(value) {
  let beside = {};
  // More hops than this are a circle.
  for (let hops = 0; value?.$ref && hops < 20; hops += 1) {
    const { $ref, ...rest } = value;
    beside = { ...rest, ...beside };
    value = $ref.split('/').slice(1)
      .map((part) => decodeURIComponent(part).replaceAll('~1', '/').replaceAll('~0', '~'))
      .reduce((target, part) => target?.[part], api) ?? {};
  }
  return typeof value === 'object' ? { ...value, ...beside } : value;
}

/** A schema without `$ref` and `allOf`, which says the same to a reader. */
function flatten(schema, depth = 0) {
  const { allOf, ...rest } = Object(resolve(schema));
  if (!allOf || depth > 8) return typeof schema === 'object' ? rest : schema;
  return [...allOf, rest].map((part) => Object(flatten(part, depth + 1))).reduce((one, other) => {
    const properties = { ...one.properties };
    for (const [name, property] of Object.entries(other.properties ?? {})) {
      properties[name] = name in properties ? { ...flatten(properties[name]), ...flatten(property) } : property;
    }
    const required = [...one.required ?? [], ...other.required ?? []];
    return { ...one, ...other, properties, required };
  });
}

const nameOf = (schema) => schema?.$ref?.split('/').at(-1) ?? schema?.title;
const brief = (schema) => nameOf(schema) ?? typeOf(flatten(schema));

function typeOf(flat) {
  if (flat === false) return 'nothing';
  if (flat?.items) return `array of ${brief(flat.items)}`;
  if (flat?.type) return [flat.type].flat().join(' or ') + (flat.format ? ` (${flat.format})` : '');
  if (flat?.properties) return 'object';
  if (flat?.enum || flat?.const !== undefined) return '';
  return (flat?.anyOf ?? flat?.oneOf)?.map(brief).join(' or ') || 'any value';
}

function range(least, most, unit = '') {
  if (least === undefined) return most === undefined ? '' : `at most ${most}${unit}`;
  if (most === undefined) return `at least ${least}${unit}`;
  return least === most ? `exactly ${least}${unit}` : `${least}–${most}${unit}`;
}

/** The limits of a value in one line. */
function limits(flat) {
  const value = (any) => code(typeof any === 'string' ? any : JSON.stringify(any));
  if (flat.const !== undefined) return ['always ', value(flat.const)];
  return [
    flat.enum && ['one of ', flat.enum.map((any, index) => [index ? ', ' : '', value(any)])],
    range(flat.minLength, flat.maxLength, ' characters'),
    range(flat.minimum, flat.maximum),
    flat.exclusiveMinimum !== undefined && `more than ${flat.exclusiveMinimum}`,
    flat.exclusiveMaximum !== undefined && `less than ${flat.exclusiveMaximum}`,
    range(flat.minItems, flat.maxItems, ' items'),
    flat.uniqueItems && 'no item twice',
    flat.pattern && ['matches ', code(flat.pattern)],
    flat.contentMediaType && ['holds ', code(flat.contentMediaType)],
    flat.default !== undefined && ['default ', value(flat.default)],
    flat.deprecated && 'deprecated',
  ].filter((part) => part).flatMap((part, index) => [index ? '; ' : '', part]);
}

/** What a schema consists of: members, elements, alternatives. */
function partsOf(flat) {
  const { properties = {}, required = [], additionalProperties: others, prefixItems = [] } = flat;
  return [
    ...Object.entries(properties).map(([name, schema]) => (
      { label: code(name), schema, required: required.includes(name) })),
    others?.constructor === Object && { label: 'each other name', schema: others },
    ...prefixItems.map((schema, index) => ({ label: `item ${index}`, schema })),
    flat.items && { label: 'each item', schema: flat.items },
    flat.contentSchema && { label: 'its content', schema: flat.contentSchema },
    ...(flat.anyOf ?? flat.oneOf ?? []).map((schema) => ({ label: 'either', schema })),
  ].filter((part) => part);
}

function schemaView({ label, schema, required, example }, depth = 0) {
  const flat = Object(flatten(schema));
  const name = nameOf(schema);
  const parts = partsOf(flat);
  const list = () => h('ul', { class: 'schema' }, parts.map((part) => schemaView(part, depth + 1)));
  return h('li', {},
    label, ' ', h('span', { class: 'type' }, [name, typeOf(flatten(schema))].filter(Boolean).join(' – ')),
    required && h('span', { class: 'required' }, ' required'),
    h('span', { class: 'limits' }, limits(flat)),
    flat.description && markdown(flat.description),
    example !== undefined && h('p', { class: 'muted' }, 'Example: ', code([example].flat().join(', '))),
    parts.length > 0 && (depth === 0 ? list()
      : fold(`${parts.length} ${parts.length > 1 ? 'parts' : 'part'}`, list, depth < OPEN_LEVELS)));
}

/** Parameters and headers are shown like the members of an object. */
function parametersView(parameters) {
  return h('ul', { class: 'schema root' }, parameters.map((parameter) => {
    const { name, in: place, schema = {}, description, required } = parameter;
    const [[, example] = []] = examplesOf({ ...parameter, schema: {} });
    return schemaView({
      label: [code(name), ' ', h('span', { class: 'muted' }, place)],
      schema: description ? { ...schema, description } : schema,
      required,
      example,
    });
  }));
}

/** The examples of a parameter or a media type, each with its name. */
function examplesOf({ examples, example, schema }) {
  const named = Object.entries(examples ?? {}).map(([name, one]) => {
    const { summary, value } = resolve(one);
    return [summary ?? name, value];
  });
  if (named.length) return named;
  const flat = Object(flatten(schema));
  const value = example ?? flat.examples?.[0] ?? flat.example ?? flat.default;
  return value === undefined ? [] : [['Example', value]];
}

const isLines = (media) => /ndjson|jsonl/.test(media);

function exampleText(media, value) {
  if (typeof value === 'string') return value;
  if (isLines(media) && Array.isArray(value)) return value.map((line) => JSON.stringify(line)).join('\n');
  if (media === 'text/event-stream') {
    return Object.entries(value).map(([name, text]) => `${name}: ${text}\n`).join('');
  }
  return JSON.stringify(value, null, 2);
}

function mediaView([media, holder]) {
  return h('div', { class: 'media' }, h('p', {}, code(media)),
    holder.schema && h('ul', { class: 'schema root' }, schemaView({ schema: holder.schema })),
    examplesOf(holder).map(([name, value]) => fold(name, () => block(exampleText(media, value)))));
}

// -------------------------------------------------------------- operations

/** Operations as the page needs them, in the order of the description. */
function operationsOf({ paths = {} }) {
  return Object.entries(paths).flatMap(([path, unresolved]) => {
    const item = resolve(unresolved);
    return METHODS.filter((method) => item[method]).map((method) => {
      const operation = item[method];
      // Those of the operation replace those of the path.
      const parameters = new Map([...item.parameters ?? [], ...operation.parameters ?? []].map(resolve)
        .filter(({ in: place, name }) => place !== 'header' || !OWN_HEADERS.includes(name.toLowerCase()))
        .map((parameter) => [`${parameter.in} ${parameter.name}`, parameter]));
      const responses = Object.entries(operation.responses ?? {});
      return {
        ...operation,
        path,
        method: method.toUpperCase(),
        id: operation.operationId ?? `${method}${path.replace(/\W+/g, '-')}`,
        parameters: [...parameters.values()],
        body: operation.requestBody && resolve(operation.requestBody),
        responses: responses.map(([status, reply]) => [status, resolve(reply)]),
      };
    });
  });
}

/** A path may be broken into lines before each slash. */
const breakable = (path) => path.split(/(?=\/)/).map((part) => [h('wbr'), part]);
const badge = (method) => h('span', { class: `method ${method.toLowerCase()}` }, method);

function responseView([status, { description = '', headers = {}, content = {} }]) {
  const heads = Object.entries(headers).map(([name, header]) => ({ ...resolve(header), name, in: 'header' }));
  const summary = [h('code', { class: 'status' }, status), ' ', inline(description)];
  const bodies = Object.entries(content);
  if (heads.length + bodies.length === 0) return h('p', { class: 'plain' }, summary);
  return fold(summary, () => h('div', { class: 'inside' },
    heads.length > 0 && parametersView(heads), bodies.map(mediaView)));
}

function operationView(operation) {
  const { id, method, path, summary, description, deprecated, parameters, body, responses } = operation;
  return h('article', { class: 'panel operation', id, 'aria-labelledby': `${id}-title` },
    h('h3', { id: `${id}-title` }, badge(method), ' ', code(breakable(path)), ' ',
      h('a', { href: `#${id}`, 'aria-label': `Link to ${method} ${path}` }, '#')),
    h('p', { class: 'lead' }, deprecated && 'Deprecated. ', inline(summary ?? '')),
    markdown(description),
    parameters.length > 0 && [h('h4', {}, 'Parameters'), parametersView(parameters)],
    body && [h('h4', {}, body.required ? 'Body, required' : 'Body'), markdown(body.description),
      Object.entries(body.content).map(mediaView)],
    h('h4', {}, 'Replies'), h('div', { class: 'replies' }, responses.map(responseView)),
    h('h4', {}, 'Request'), new Call(operation).view());
}

// ------------------------------------------------------------------ Try it

/** A call of an operation: its curl line, the form that changes both, and the reply. */
class Call {
  constructor(operation) {
    this.operation = operation;
    this.bodies = operation.body?.content ?? {};
    this.accepts = [...new Set(operation.responses.filter(([status]) => status.startsWith('2'))
      .flatMap(([, { content = {} }]) => Object.keys(content)))];
    /** What is given, by the name of the field; the form changes it. */
    this.given = new Map(operation.parameters.filter(({ required }) => required).map((parameter) => (
      [parameter, [examplesOf(parameter)[0]?.[1] ?? ''].flat().join('\n')])));
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
    const copy = h('button', {
      type: 'button',
      onclick: async () => {
        await navigator.clipboard.writeText(this.curl.textContent);
        copy.textContent = 'Copied';
        setTimeout(() => { copy.textContent = 'Copy'; }, 2_000);
      },
    }, 'Copy');
    // The clipboard is for secure contexts; plain http on another host is none.
    return [h('div', { class: 'command' }, block(this.curl, 'curl command'), navigator.clipboard && copy),
      fold('Try it', () => this.form())];
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
    const base = (api.servers?.[0]?.url ?? '').replace(/\/$/, '');
    const url = new URL(base + filled + (query.size ? `?${query}` : ''), location.href);
    return [url, { method, headers, body }];
  }

  drawCurl() {
    const [url, { method, headers, body }] = this.request();
    const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;
    this.curl.textContent = [
      'curl',
      method === 'HEAD' ? '-I' : method !== 'GET' && `-X ${method}`,
      this.accepts.includes('text/event-stream') && '-N',
      // The braces of a parameter that is not given are to be seen as such.
      quote(url.href.replaceAll('%7B', '{').replaceAll('%7D', '}')),
      ...Object.entries(headers).map(([name, value]) => `-H ${quote(`${name}: ${value}`)}`),
      body && `--data-binary ${quote(body)}`,
    ].filter((part) => part).join(' ');
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
    const fields = this.operation.parameters.filter(({ in: place }) => place !== 'cookie').map((parameter) => {
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
      const reply = await fetch(url, { ...options, signal: abort.signal, cache: 'no-store' });
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

const isArray = ({ schema }) => [Object(flatten(schema)).type].flat().includes('array');

/** JSON on many lines, with every digit of its numbers; as it was where the browser cannot keep them. */
function indent(text) {
  if (!JSON.rawJSON) return text;
  try {
    const exact = (_, value, { source }) => (typeof value === 'number' ? JSON.rawJSON(source) : value);
    return JSON.stringify(JSON.parse(text, exact), null, 2);
  } catch {
    return text;
  }
}

// ------------------------------------------------------------------- start

function draw() {
  const operations = operationsOf(api);
  const tagged = api.tags ?? [];
  const tagOf = ({ tags = [] }) => tags[0] ?? 'Operations';
  const names = new Set([...tagged.map(({ name }) => name), ...operations.map(tagOf)]);
  const groups = [...names].map((name) => ({
    name,
    id: `tag-${name.replace(/\W+/g, '-')}`,
    description: tagged.find((tag) => tag.name === name)?.description,
    operations: operations.filter((operation) => tagOf(operation) === name),
  })).filter((group) => group.operations.length > 0);

  const { title = 'API', version, summary, description } = api.info ?? {};
  document.title = `API reference – ${title}`;
  $('title').textContent = `${title} API`;
  $('summary').textContent = [version && `Version ${version}`, summary].filter(Boolean).join(' – ');
  $('contents').append(h('ul', {}, groups.map((group) => h('li', {},
    h('a', { href: `#${group.id}` }, group.name),
    h('ul', {}, [...new Set(group.operations.map(({ path }) => path))].map((path) => h('li', {},
      h('span', { class: 'path' }, breakable(path)),
      group.operations.filter((operation) => operation.path === path).map(({ id, method }) => (
        [' ', h('a', { href: `#${id}`, 'aria-label': `${method} ${path}` }, badge(method))])))))))));
  $('reference').append(
    h('section', { class: 'panel', 'aria-labelledby': 'overview' },
      h('h2', { id: 'overview' }, 'Overview'), markdown(description)),
    ...groups.map((group) => h('section', { 'aria-labelledby': group.id },
      h('h2', { id: group.id }, group.name), markdown(group.description), group.operations.map(operationView))));
  // The browser looked for it when there was nothing yet.
  if (location.hash) $(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
}

try {
  const reply = await fetch('/openapi.json');
  if (!reply.ok) throw new Error(`it was answered ${reply.status}.`);
  api = await reply.json();
  draw();
} catch (error) {
  $('problems').append(h('p', {}, `/openapi.json cannot be shown: ${error.message}`));
}
$('reading').remove();
