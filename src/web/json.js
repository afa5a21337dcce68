/**
 * JSON as text: cut and indented, never parsed and printed again, which would
 * round the numbers of a payload and lose how its strings were written.
 */

/** Deeper than this nothing moves to the right: with 500 levels a text would grow a thousandfold. */
const INDENTED_LEVELS_MAX = 20;

/**
 * The tokens of a text, and where each begins. A regular expression that takes
 * strings whole would overflow its stack on a payload of some megabytes.
 */
function* tokens(text) {
  const token = /"|[{}[\],:]|[^\s,:"{}[\]]+/g;
  for (let match = token.exec(text); match; match = token.exec(text)) {
    if (match[0] === '"') token.lastIndex = stringEnd(text, match.index);
    yield [text.slice(match.index, token.lastIndex), match.index];
  }
}

function stringEnd(text, begin) {
  for (let quote = text.indexOf('"', begin + 1); quote !== -1; quote = text.indexOf('"', quote + 1)) {
    let slashes = 0;
    while (text[quote - 1 - slashes] === '\\') slashes += 1;
    if (slashes % 2 === 0) return quote + 1;
  }
  return text.length;
}

const opens = (token) => token === '{' || token === '[';
const closes = (token) => token === '}' || token === ']';

/**
 * The same JSON with line breaks and indentation, every token as it was. It
 * ends with the token that makes it longer than `charsMax`.
 */
export function indent(text, charsMax = Infinity) {
  const parts = [];
  let chars = 0;
  let depth = 0;
  let before = '';
  const add = (part) => {
    parts.push(part);
    chars += part.length;
  };
  for (const [token] of tokens(text)) {
    if (closes(token)) depth = Math.max(0, depth - 1);
    // Nothing goes between the brackets of what is empty.
    if (before === ',' || opens(before) !== closes(token)) {
      add(`\n${'  '.repeat(Math.min(depth, INDENTED_LEVELS_MAX))}`);
    }
    if (opens(token)) depth += 1;
    add(token === ':' ? ': ' : token);
    if (chars > charsMax) break;
    before = token;
  }
  return parts.join('');
}

/** What a JSON array holds, each value as text; of an object its names and values in turn. */
export function values(text) {
  const found = [];
  let depth = 0;
  let begin = 0;
  for (const [token, at] of tokens(text)) {
    if (closes(token)) depth -= 1;
    else if (depth === 1) begin = at;
    if (opens(token)) depth += 1;
    else if (depth === 1 && token !== ',' && token !== ':') found.push(text.slice(begin, at + token.length));
  }
  return found;
}

/** The members of a JSON object: name → the text of the value. */
export function members(text) {
  const found = new Map();
  const all = values(text);
  for (let at = 0; at < all.length; at += 2) found.set(JSON.parse(all[at]), all[at + 1]);
  return found;
}
