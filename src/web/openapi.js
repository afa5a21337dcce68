/**
 * What an OpenAPI 3.1 description says, with its references followed. It knows
 * nothing of this service, and nothing of pages.
 */

import { fetchWithKey } from './key.js';

const METHODS = ['get', 'post', 'put', 'patch', 'delete', 'head', 'options', 'trace'];

let api = {};

/** The description, which must be read before anything else is asked. */
export async function read() {
  const reply = await fetchWithKey('/openapi.json', () => ({ cache: 'default' }));
  if (!reply.ok) throw new Error(`it was answered ${reply.status}.`);
  api = await reply.json();
  return api;
}

/** What a `$ref` names, together with what stands beside it. */
export function resolve(value) {
  let beside = {};
  // More hops than this are a circle.
  for (let hops = 0; value?.$ref && hops < 20; hops += 1) {
    const { $ref, ...rest } = value;
    beside = { ...rest, ...beside };
    value = $ref.split('/').slice(1)
      .map((part) => part.replaceAll('~1', '/').replaceAll('~0', '~'))
      .reduce((target, part) => target?.[part], api) ?? {};
  }
  return typeof value === 'object' ? { ...value, ...beside } : value;
}

/** A schema without `$ref` and `allOf`, which says the same to a reader. */
export function flatten(schema, depth = 0) {
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

export const nameOf = (schema) => schema?.$ref?.split('/').at(-1) ?? schema?.title;
const brief = (schema) => nameOf(schema) ?? typeOf(flatten(schema));

export function typeOf(flat) {
  if (flat === false) return 'nothing';
  if (flat?.items) return `array of ${brief(flat.items)}`;
  if (flat?.type) return [flat.type].flat().join(' or ') + (flat.format ? ` (${flat.format})` : '');
  if (flat?.properties) return 'object';
  if (flat?.enum || flat?.const !== undefined) return '';
  return (flat?.anyOf ?? flat?.oneOf)?.map(brief).join(' or ') || 'any value';
}

/** Whether a parameter may be given several times. */
export const isArray = ({ schema }) => [Object(flatten(schema)).type].flat().includes('array');

/** The examples of a parameter or a media type, each with its name. */
export function examplesOf({ examples, example, schema }) {
  const named = Object.entries(examples ?? {}).map(([name, one]) => {
    const { summary, value } = resolve(one);
    return [summary ?? name, value];
  });
  if (named.length) return named;
  const flat = Object(flatten(schema));
  const value = example ?? flat.examples?.[0] ?? flat.example ?? flat.default;
  return value === undefined ? [] : [['Example', value]];
}

export function exampleText(media, value) {
  if (typeof value === 'string') return value;
  if (/ndjson|jsonl/.test(media)) return [value].flat().map((line) => JSON.stringify(line)).join('\n');
  if (media === 'text/event-stream') {
    return Object.entries(value).map(([name, text]) => `${name}: ${text}\n`).join('');
  }
  return JSON.stringify(value, null, 2);
}

/** A reply with what stands beside its content for the sake of generators. */
function whole({ 'x-content': more, ...reply }) {
  return more ? { ...reply, content: { ...reply.content, ...more } } : reply;
}

/** Operations as the page needs them, in the order of the description. */
export function operations() {
  return Object.entries(api.paths).flatMap(([path, item]) => (
    METHODS.filter((method) => item[method]).map((method) => {
      const operation = item[method];
      const parameters = [...item.parameters ?? [], ...operation.parameters ?? []].map(resolve);
      return {
        ...operation,
        path,
        method: method.toUpperCase(),
        id: operation.operationId,
        // Those of the operation replace those of the path.
        parameters: [...new Map(parameters.map((one) => [`${one.in} ${one.name}`, one])).values()],
        body: resolve(operation.requestBody),
        responses: Object.entries(operation.responses).map(([status, reply]) => [status, whole(resolve(reply))]),
      };
    })));
}
