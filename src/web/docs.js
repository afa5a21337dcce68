/**
 * The API reference: `/openapi.json` as a page, with a form for each operation.
 * What it reads becomes elements and text.
 */

import { Call } from './call.js';
import { $, block, code, fold, h } from './dom.js';
import {
  exampleText, examplesOf, flatten, nameOf, operations, read, resolve, typeOf,
} from './openapi.js';

/** How deep a schema is unfolded; what lies below is made when it is opened, so it may be endless. */
const OPEN_LEVELS = 2;

// ---- Markdown

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
        : h('p', {}, inline(part))));
  }));
}

// ---- schemas

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
    flat.enum?.length === 1 && ['always ', value(flat.enum[0])],
    flat.enum?.length > 1 && ['one of ', flat.enum.map((any, index) => [index ? ', ' : '', value(any)])],
    range(flat.minLength, flat.maxLength, ' characters'),
    range(flat.minimum, flat.maximum),
    range(flat.minItems, flat.maxItems, ' items'),
    flat.uniqueItems && 'no item twice',
    flat.pattern && ['matches ', code(flat.pattern)],
    flat.contentMediaType && ['holds ', code(flat.contentMediaType)],
    flat.default !== undefined && ['default ', value(flat.default)],
  ].filter(Boolean).flatMap((part, index) => [index ? '; ' : '', part]);
}

/** What a schema consists of: members, elements, alternatives. */
function partsOf(flat) {
  const { properties = {}, required = [], additionalProperties: others } = flat;
  return [
    ...Object.entries(properties).map(([name, schema]) => (
      { label: code(name), schema, required: required.includes(name) })),
    others?.constructor === Object && { label: 'each other name', schema: others },
    flat.items && { label: 'each item', schema: flat.items },
    flat.contentSchema && { label: 'its content', schema: flat.contentSchema },
    ...(flat.anyOf ?? flat.oneOf ?? []).map((schema) => ({ label: 'either', schema })),
  ].filter(Boolean);
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

function mediaView([media, holder]) {
  return h('div', { class: 'media' }, h('p', {}, code(media)),
    holder.schema && h('ul', { class: 'schema root' }, schemaView({ schema: holder.schema })),
    examplesOf(holder).map(([name, value]) => fold(name, () => block(exampleText(media, value)))));
}

// ---- operations

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
  const { id, method, path, summary, description, parameters, body, responses } = operation;
  return h('article', { class: 'panel operation', id, 'aria-labelledby': `${id}-title` },
    h('h3', { id: `${id}-title` }, badge(method), ' ', code(breakable(path)), ' ',
      h('a', { href: `#${id}`, 'aria-label': `Link to ${method} ${path}` }, '#')),
    h('p', { class: 'lead' }, inline(summary)),
    markdown(description),
    parameters.length > 0 && [h('h4', {}, 'Parameters'), parametersView(parameters)],
    body && [h('h4', {}, body.required ? 'Body, required' : 'Body'), markdown(body.description),
      Object.entries(body.content).map(mediaView)],
    h('h4', {}, 'Replies'), h('div', { class: 'replies' }, responses.map(responseView)),
    h('h4', {}, 'Request'), new Call(operation).view());
}

function draw({ info: { title, version, summary, description }, tags }) {
  const all = operations();
  const groups = tags.map((tag) => ({
    ...tag,
    id: `tag-${tag.name.replace(/\W+/g, '-')}`,
    operations: all.filter((operation) => operation.tags[0] === tag.name),
  }));
  document.title = `API reference – ${title}`;
  $('title').textContent = `${title} API`;
  $('summary').textContent = `Version ${version} – ${summary}`;
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
  if (location.hash) $(location.hash.slice(1))?.scrollIntoView();
}

try {
  draw(await read());
} catch (error) {
  $('problems').append(h('p', {}, `/openapi.json cannot be shown: ${error.message}`));
}
$('reading').remove();
