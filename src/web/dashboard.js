/**
 * The dashboard: one stream of counters, and what is read anew when they change.
 *
 * Whatever comes out of an event is foreign text. It reaches the page through
 * `textContent` alone, and its JSON is cut and indented as text, never parsed
 * and printed again: that would round the numbers of a payload.
 */

const FRAME_RATE_SECONDS = 5; // the rate is the mean of these
const FEED_EVENTS_MAX = 50;
const FEED_PAUSE_MS_MIN = 500;
const PAYLOAD_CHARS_MAX = 100_000; // shown at once; more on demand
const PREVIEW_CHARS_MAX = 120;
const BAR_MINUTES = 15;
const BARS = 96;
const SUBSCRIPTIONS_PAUSE_MS = 5_000;
const SUBSCRIPTIONS_SHOWN_MAX = 100;
const ANNOUNCE_PAUSE_MS = 30_000;
const RETRY_MS_MAX = 15_000;

// ---------------------------------------------------------------- the page

const $ = (id) => document.getElementById(id);

/** An element; `null` and `false` attributes are left out, text is never markup. */
function h(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith('on')) element.addEventListener(key.slice(2), value);
    else if (value !== null && value !== false) element.setAttribute(key, value === true ? '' : value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** Writes only what differs, so that a selection in an unchanged text survives. */
function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const numbers = new Intl.NumberFormat();
const rates = new Intl.NumberFormat(undefined, { maximumFractionDigits: 1 });
const shares = new Intl.NumberFormat(undefined, { style: 'percent', maximumFractionDigits: 1 });
const compact = new Intl.NumberFormat(undefined, { notation: 'compact', maximumFractionDigits: 1 });
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: 'medium' });
const hours = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit' });
const dateAndClock = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'medium' });
const dateAndHours = new Intl.DateTimeFormat(undefined, {
  weekday: 'short', hour: '2-digit', minute: '2-digit',
});

/** A time in the reader's zone; the exact one stays readable in the title. */
function time(exact, format = null) {
  const date = new Date(exact);
  const today = date.toDateString() === new Date().toDateString();
  return h('time', { datetime: exact, title: exact },
    (format ?? (today ? clock : dateAndClock)).format(date));
}

async function copy(text, button) {
  const label = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // The clipboard API is for secure contexts; plain http on another host is none.
    const area = h('textarea', { class: 'unseen', 'aria-hidden': 'true' });
    area.value = text;
    document.body.append(area);
    area.select();
    const copied = document.execCommand('copy');
    area.remove();
    button.focus();
    if (!copied) return announce('Copying is not allowed here.');
  }
  button.textContent = 'Copied';
  announce('Copied');
  setTimeout(() => { button.textContent = label; }, 2_000);
}

function announce(text) {
  $('announcer').textContent = text;
}

// ------------------------------------------------------------ JSON as text

/**
 * The tokens of a JSON text, and where each begins. A regular expression that
 * takes strings whole would overflow its stack on a payload of some megabytes.
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

/** The same JSON with line breaks and indentation, every token as it was. */
function indent(text) {
  const parts = [];
  let depth = 0;
  let before = '';
  for (const [token] of tokens(text)) {
    if (closes(token)) depth -= 1;
    // Nothing goes between the brackets of what is empty.
    if (before === ',' || opens(before) !== closes(token)) parts.push('\n', '  '.repeat(depth));
    if (opens(token)) depth += 1;
    parts.push(token === ':' ? ': ' : token);
    before = token;
  }
  return parts.join('');
}

/** What a JSON array holds, each value as text; of an object its names and values in turn. */
function values(text) {
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
function members(text) {
  const found = new Map();
  const all = values(text);
  for (let at = 0; at < all.length; at += 2) found.set(JSON.parse(all[at]), all[at + 1]);
  return found;
}

// ---------------------------------------------------------------- requests

/** A reply that is no success, in the words of its problem+json. */
class Refusal extends Error {
  constructor(reply, text) {
    let problem = {};
    try { problem = JSON.parse(text) ?? {}; } catch { /* not from the service: a proxy's page */ }
    const why = problem.detail ?? problem.reason ?? problem.title ?? reply.statusText;
    super(`${reply.status} – ${why}`);
    this.errors = problem.errors ?? [];
    this.retryMs = 1000 * (Number(reply.headers.get('retry-after')) || 2);
  }
}

/** The text of a reply. */
async function ask(path, options = {}) {
  let reply;
  let text;
  try {
    reply = await fetch(path, { cache: 'no-store', ...options });
    text = await reply.text();
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Error('The service cannot be reached.');
  }
  if (!reply.ok) throw new Refusal(reply, text);
  return text;
}

const troubles = new Map();

/** Shows what does not work now, one line for each part of the page; `null` when it works again. */
function trouble(part, error) {
  if (!error) {
    troubles.get(part)?.remove();
    troubles.delete(part);
    return;
  }
  if (!troubles.has(part)) {
    troubles.set(part, h('p'));
    $('problems').append(troubles.get(part));
  }
  say(troubles.get(part), `${part}: ${error.message}`);
}

// -------------------------------------------------------------- the stream

let source = null;
let retryTimer = 0;
let retryMs = 1_000;
/** The newest frame of counters. */
let stats = null;
/** The service's clock less ours, in milliseconds. */
let clockOffset = 0;

const now = () => Date.now() + clockOffset;

function setState(state, text) {
  $('state').dataset.state = state;
  say($('state-text'), text);
}

function open() {
  close();
  setState('connecting', stats ? 'Reconnecting…' : 'Connecting…');
  source = new EventSource('/stats/stream');
  source.onmessage = (message) => {
    if ($('state').dataset.state !== 'live') {
      retryMs = 1_000;
      setState('live', 'Live');
      trouble('Live counters', null);
      // Minutes may have passed without us.
      if (history.startedAt !== null) history.read();
    }
    onFrame(JSON.parse(message.data));
  };
  source.onerror = async () => {
    setState('reconnecting', 'Reconnecting…');
    samples = [];
    drawRate();
    // The browser comes back by itself after a broken connection, but gives up
    // for good after a reply that is no stream, such as a 503.
    if (source.readyState !== EventSource.CLOSED) return;
    close();
    retryTimer = setTimeout(open, retryMs);
    retryMs = Math.min(retryMs * 2, RETRY_MS_MAX);
    // EventSource does not tell why; the health route does.
    let why = new Error('the stream was refused; trying again.');
    await ask('/health').catch((error) => { why = error; });
    if ($('state').dataset.state !== 'live') trouble('Live counters', why);
  };
}

function close() {
  clearTimeout(retryTimer);
  source?.close();
  source = null;
}

/** A tab that nobody sees holds no connection: browsers allow six for a host. */
function onVisibility() {
  if (document.hidden) {
    close();
    samples = [];
    setState('paused', 'Paused while hidden');
  } else if (!source) {
    open();
    feed.next();
  }
}

function onFrame(frame) {
  const before = stats;
  const countBefore = feed.count();
  stats = frame;
  if (before && frame.received < before.received) startOver();
  const changed = !before || frame.received !== before.received;
  samples.push({ at: performance.now(), received: frame.received });
  drawTotals();
  drawTopics();
  $('start').hidden = frame.received + frame.rejected > 0;
  if (changed) {
    announceTotals();
    history.onChange();
  }
  if (!before || feed.count() === undefined || feed.count() !== countBefore) feed.onChange();
  subscriptions.onChange();
}

/** The counters went back, so the service has another store: nothing that was read holds. */
function startOver() {
  samples = [];
  history.forget();
  feed.forget();
}

// ------------------------------------------------------------------ totals

/** What was received at which moment, oldest first, as far back as the rate needs it. */
let samples = [];
let announcedAt = 0;

function rate() {
  if (samples.length === 0) return null;
  const end = performance.now();
  const begin = end - FRAME_RATE_SECONDS * 1000;
  // The newest of those before the window says what there was when it began.
  while (samples.length > 1 && samples[1].at <= begin) samples.shift();
  // A stream that has just begun is measured over its own age, one second at least.
  const seconds = Math.min(FRAME_RATE_SECONDS, Math.max(1, (end - samples[0].at) / 1000));
  return (samples.at(-1).received - samples[0].received) / seconds;
}

function drawRate() {
  const value = rate();
  say($('rate'), value === null ? '–' : rates.format(value));
}

function drawTotals() {
  for (const name of ['received', 'unique_processed', 'duplicate_dropped', 'conflicts', 'rejected']) {
    say($(name), numbers.format(stats[name]));
  }
  const share = stats.received && stats.duplicate_dropped / stats.received;
  say($('share'), stats.received ? `${shares.format(share)} of all received` : '');
  drawRate();
}

/** Those who listen hear of the numbers now and then, not of each. */
function announceTotals() {
  if (performance.now() - announcedAt < ANNOUNCE_PAUSE_MS && announcedAt) return;
  announcedAt = performance.now();
  announce(`${numbers.format(stats.received)} events received, `
    + `${numbers.format(stats.unique_processed)} stored, `
    + `${numbers.format(stats.duplicate_dropped)} duplicates`);
}

// ----------------------------------------------------------------- history

const MINUTE_MS = 60_000;
const BAR_MS = BAR_MINUTES * MINUTE_MS;

const history = {
  /** Counters by the first publish of each minute, oldest first. */
  snapshots: [],
  /** When the service first started, or `null` while that is not known. */
  startedAt: null,
  known: false,
  timer: 0,
  attempts: 0,

  async read() {
    clearTimeout(this.timer);
    this.timer = 0;
    try {
      const snapshots = JSON.parse(await ask('/stats/history'));
      this.snapshots = snapshots.map(({ minute, unique_processed, duplicate_dropped }) => (
        { at: Date.parse(minute), stored: unique_processed, duplicates: duplicate_dropped }));
      this.known = true;
      trouble('History', null);
    } catch (error) {
      trouble('History', error);
      this.timer = setTimeout(() => this.read(), RETRY_MS_MAX);
    }
    this.draw();
  },

  /** The counters moved. The snapshot of a new minute is written a moment after its events. */
  onChange() {
    if (this.timer) return;
    const newest = this.snapshots.at(-1)?.at ?? 0;
    const isNewMinute = now() - newest >= MINUTE_MS;
    this.attempts = isNewMinute ? this.attempts + 1 : 0;
    // Without a key-value store it never comes: ask less and less often.
    const wait = isNewMinute ? 1_000 * Math.min(this.attempts, 30) : 1_000;
    this.timer = setTimeout(() => {
      this.timer = 0;
      if (isNewMinute) this.read();
      else this.draw();
    }, wait);
  },

  forget() {
    this.snapshots = [];
    this.startedAt = null;
    this.known = false;
    readService();
  },

  /**
   * What was stored and dropped in each bar. Between two snapshots lie the rest
   * of the first one's minute and the publish that made the second, nothing else:
   * minutes without a publish have no snapshot. That publish brought one event
   * at least, so one counts where the second stands, and the rest where the first does.
   */
  bars() {
    const first = Math.floor(now() / BAR_MS) - BARS + 1;
    const bars = Array.from({ length: BARS }, (_, index) => (
      { from: (first + index) * BAR_MS, stored: 0, duplicates: 0 }));
    const add = (at, stored, duplicates) => {
      const bar = bars[Math.floor(at / BAR_MS) - first];
      if (bar) { bar.stored += stored; bar.duplicates += duplicates; }
    };
    // What was counted before the first snapshot is no activity of its bar,
    // unless there was no service before it.
    let before = this.startedAt >= bars[0].from ? { at: null, stored: 0, duplicates: 0 } : null;
    for (const snapshot of this.snapshots) {
      if (before) {
        const stored = Math.max(0, snapshot.stored - before.stored);
        const duplicates = Math.max(0, snapshot.duplicates - before.duplicates);
        const oneStored = Math.min(1, stored);
        const oneDuplicate = oneStored ? 0 : Math.min(1, duplicates);
        add(snapshot.at, oneStored, oneDuplicate);
        add(before.at ?? snapshot.at, stored - oneStored, duplicates - oneDuplicate);
      }
      before = snapshot;
    }
    if (stats && before?.at) {
      add(before.at, Math.max(0, stats.unique_processed - before.stored),
        Math.max(0, stats.duplicate_dropped - before.duplicates));
    }
    return bars;
  },

  draw() {
    if (!this.known) return say($('chart-text'), 'The history cannot be read now.');
    const bars = this.bars();
    drawChart($('chart'), bars);
    const busy = bars.filter((bar) => bar.stored + bar.duplicates > 0);
    const stored = bars.reduce((sum, bar) => sum + bar.stored, 0);
    const duplicates = bars.reduce((sum, bar) => sum + bar.duplicates, 0);
    say($('chart-text'), busy.length === 0
      ? 'No event in the last 24 hours.'
      : `Received: ${numbers.format(stored + duplicates)}, of which ${numbers.format(stored)} were stored `
        + `and ${numbers.format(duplicates)} were duplicates. A bar is ${BAR_MINUTES} minutes.`);
    $('chart-rows').replaceChildren(...busy.reverse().map((bar) => h('tr', {},
      h('th', { scope: 'row' }, time(new Date(bar.from).toISOString(), dateAndHours)),
      h('td', { class: 'n' }, numbers.format(bar.stored + bar.duplicates)),
      h('td', { class: 'n' }, numbers.format(bar.stored)),
      h('td', { class: 'n' }, numbers.format(bar.duplicates)))));
  },
};

function svg(name, attributes, ...children) {
  const element = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** The least of 1, 2, 5, 10, 20, 50 … that makes four steps reach `most`. */
function axisStep(most) {
  const least = Math.max(1, most / 4);
  const power = 10 ** Math.floor(Math.log10(least));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= least * 0.999);
}

function drawChart(place, bars) {
  // Drawn in real pixels, so that the letters keep their size on a phone.
  const width = Math.max(240, place.clientWidth);
  const height = 190;
  const [left, right, top, bottom] = [46, 6, 10, 24];
  const highest = Math.max(1, ...bars.map((bar) => bar.stored + bar.duplicates));
  const step = axisStep(highest);
  const most = step * Math.ceil(highest / step);
  const slot = (width - left - right) / bars.length;
  const y = (value) => height - bottom - (value / most) * (height - top - bottom);
  const drawing = svg('svg', {
    role: 'img', 'aria-labelledby': 'chart-title', 'aria-describedby': 'chart-text',
    width, height, viewBox: `0 0 ${width} ${height}`,
  });
  for (let value = 0; value <= most; value += step) {
    drawing.append(
      svg('line', { class: 'grid', x1: left, x2: width - right, y1: y(value), y2: y(value) }),
      svg('text', { x: left - 6, y: y(value) + 4, 'text-anchor': 'end' }, compact.format(value)));
  }
  const hoursApart = width < 560 ? 6 : 3;
  bars.forEach((bar, index) => {
    const x = left + index * slot;
    const date = new Date(bar.from);
    if (date.getMinutes() === 0 && date.getHours() % hoursApart === 0) {
      drawing.append(
        svg('line', { class: 'tick', x1: x, x2: x, y1: height - bottom, y2: height - bottom + 4 }));
      // At the edges a label would be cut.
      if (x > left + 12 && x < width - 20) {
        drawing.append(svg('text', { x, y: height - 6, 'text-anchor': 'middle' }, hours.format(date)));
      }
    }
    const sum = bar.stored + bar.duplicates;
    if (sum === 0) return;
    const column = svg('g', { class: 'column' }, svg('title', {},
      `${hours.format(bar.from)}–${hours.format(bar.from + BAR_MS)}: `
      + `${numbers.format(bar.stored)} stored, ${numbers.format(bar.duplicates)} duplicates`));
    const gap = slot > 5 ? 1 : 0.4;
    const part = (name, from, to) => {
      // Few beside many are still there: a pixel is the least.
      const size = Math.max(1, y(from) - y(to));
      column.append(svg('rect', {
        class: name, x: x + gap / 2, width: slot - gap, y: y(from) - size, height: size,
      }));
    };
    column.append(svg('rect', {
      class: 'reach', x, width: slot, y: top, height: height - top - bottom,
    }));
    if (bar.stored) part('stored', 0, bar.stored);
    if (bar.duplicates) part('duplicates', bar.stored, sum);
    drawing.append(column);
  });
  place.replaceChildren(drawing);
}

// ------------------------------------------------------------------ topics

/** The topic that is followed, or `null`. */
let followed = null;
/** Rows by topic, so that a row keeps its place in the page and the focus that it may have. */
const topicRows = new Map();

const topicUrl = (topic) => `/?${new URLSearchParams({ topic })}`;

/** Links stay links: with a modifier key they open in another tab. */
function onFollowClick(event, topic) {
  if (event.ctrlKey || event.metaKey || event.shiftKey || event.button !== 0) return;
  event.preventDefault();
  follow(topic);
}

function follow(topic) {
  if (topic === followed) return;
  window.history.pushState(null, '', topic === null ? '/' : topicUrl(topic));
  onUrl();
}

/** The address says what is followed: it can be kept, sent, and gone back from. */
function onUrl() {
  followed = new URLSearchParams(location.search).get('topic') || null;
  document.title = followed === null ? 'Sekali' : `${followed} – Sekali`;
  $('following').hidden = followed === null;
  say($('following-topic'), followed ?? '');
  if (stats) drawTopics();
  feed.forget();
  feed.onChange();
}

function topicRow(topic) {
  const link = h('a', {
    href: topicUrl(topic), title: topic, dir: 'auto', onclick: (event) => onFollowClick(event, topic),
  }, topic);
  const cells = [0, 1].map(() => h('td', { class: 'n' }));
  const conflicts = h('span', { class: 'conflicts' });
  const row = h('tr', {}, h('th', { scope: 'row' }, link, conflicts), ...cells);
  return { row, link, cells, conflicts };
}

function drawTopics() {
  const filter = $('topic-filter').value.trim().toLowerCase();
  const body = $('topic-rows');
  // Whoever is about to click on a row, or stands on one, wants it to stay where it is.
  const held = $('topics').matches(':hover, :focus-within');
  const shown = new Set();
  let place = body.firstElementChild;
  for (const counts of stats.topics) {
    if (!counts.topic.toLowerCase().includes(filter)) continue;
    shown.add(counts.topic);
    let entry = topicRows.get(counts.topic);
    if (!entry) {
      entry = topicRow(counts.topic);
      topicRows.set(counts.topic, entry);
      body.insertBefore(entry.row, held ? null : place);
    } else if (!held && entry.row !== place) {
      body.insertBefore(entry.row, place);
    } else if (!held) {
      place = place.nextElementSibling;
    }
    say(entry.cells[0], numbers.format(counts.received));
    say(entry.cells[1], numbers.format(counts.duplicate_dropped));
    say(entry.conflicts, counts.conflicts ? `conflicts: ${numbers.format(counts.conflicts)}` : '');
    if (counts.topic === followed) entry.link.setAttribute('aria-current', 'true');
    else entry.link.removeAttribute('aria-current');
  }
  for (const [topic, entry] of topicRows) {
    if (shown.has(topic)) continue;
    entry.row.remove();
    topicRows.delete(topic);
  }
  const more = stats.topic_count - stats.topics.length;
  say($('topics-more'), [
    stats.topic_count === 0 ? 'No topic yet.' : shown.size === 0 && 'None of the topics here has this in its name.',
    more > 0 && `${numbers.format(more)} more topics with fewer events.`,
  ].filter(Boolean).join(' '));
}

// -------------------------------------------------------------------- feed

const feed = {
  /** Rows by seq. */
  rows: new Map(),
  paused: false,
  dirty: false,
  /** The request under way. */
  asking: null,
  timer: 0,
  /** No request before this moment. */
  notBefore: 0,
  /** Whether rows are known: then others are new, and are marked. */
  known: false,
  /** What was stored when the feed was paused. */
  pausedAt: 0,

  onChange() {
    this.dirty = true;
    this.drawState();
    this.next();
  },

  /** One request at a time, two a second at most, and a slow service is asked less often. */
  next() {
    if (!this.dirty || this.paused || this.asking || this.timer || document.hidden) return;
    this.timer = setTimeout(() => {
      this.timer = 0;
      this.read();
    }, Math.max(0, this.notBefore - performance.now()));
  },

  async read() {
    const began = performance.now();
    const asking = new AbortController();
    this.asking = asking;
    this.dirty = false;
    try {
      const query = new URLSearchParams({ order: 'desc', limit: FEED_EVENTS_MAX });
      if (followed !== null) query.set('topic', followed);
      const text = await ask(`/events?${query}`, { signal: asking.signal });
      // Paused or turned to another topic meanwhile: this is not wanted any more.
      if (this.asking !== asking) return;
      this.draw(values(members(text).get('events')).map(members));
      trouble('Newest events', null);
      this.notBefore = began + Math.max(FEED_PAUSE_MS_MIN, 2 * (performance.now() - began));
    } catch (error) {
      if (this.asking !== asking) return;
      trouble('Newest events', error);
      this.dirty = true;
      this.notBefore = performance.now() + (error.retryMs ?? 2_000);
    }
    this.asking = null;
    this.next();
  },

  stop() {
    clearTimeout(this.timer);
    this.timer = 0;
    this.asking?.abort();
    this.asking = null;
  },

  forget() {
    this.stop();
    this.rows.clear();
    this.known = false;
    this.notBefore = 0;
    // The first page is shown whatever follows; pausing holds what comes after it.
    this.setPaused(false);
    $('feed-rows').replaceChildren();
    say($('feed-empty'), 'Reading the events…');
  },

  setPaused(paused) {
    this.paused = paused;
    this.pausedAt = this.count() ?? 0;
    say($('feed-pause'), paused ? 'Resume' : 'Pause');
    this.drawState();
    if (paused) {
      // What was asked for is not shown, so it has to be asked for again.
      if (this.asking) this.dirty = true;
      this.stop();
    } else {
      this.next();
    }
  },

  /** How many events there are of what is shown; `undefined` when the counters do not say. */
  count() {
    if (!stats) return undefined;
    if (followed === null) return stats.unique_processed;
    return stats.topics.find((counts) => counts.topic === followed)?.unique_processed;
  },

  drawState() {
    if (!this.paused) return say($('feed-state'), '');
    const newer = (this.count() ?? 0) - this.pausedAt;
    say($('feed-state'), newer > 0 ? `Paused, ${numbers.format(newer)} newer` : 'Paused');
  },

  draw(events) {
    const body = $('feed-rows');
    const present = new Set(events.map((event) => event.get('seq')));
    for (const [seq, entry] of this.rows) {
      // What somebody reads stays, though there are fifty newer ones.
      const isRead = entry.isOpen() || entry.row.contains(document.activeElement);
      if (present.has(seq) || isRead) continue;
      entry.row.remove();
      this.rows.delete(seq);
    }
    for (const entry of this.rows.values()) entry.row.classList.remove('new');
    let place = body.firstElementChild;
    for (const event of events) {
      const seq = event.get('seq');
      const shown = this.rows.get(seq);
      if (shown) {
        place = shown.last().nextElementSibling;
        continue;
      }
      const entry = eventRow(event);
      if (this.known) entry.row.classList.add('new');
      this.rows.set(seq, entry);
      body.insertBefore(entry.row, place);
    }
    this.known = true;
    say($('feed-empty'), this.rows.size ? ''
      : followed === null ? 'No event is stored.' : 'No event of this topic is stored.');
  },
};

/** The row of an event, and below it, once it is opened, all of the event. */
function eventRow(event) {
  const string = (name) => JSON.parse(event.get(name));
  const seq = event.get('seq');
  const payload = event.get('payload');
  const foreign = (text) => h('bdi', { title: text }, text);
  let detail = null;
  const button = h('button', {
    type: 'button', class: 'small', 'aria-expanded': 'false', 'aria-label': `Show event ${seq}`,
    onclick: () => {
      if (detail) {
        detail.remove();
        detail = null;
      } else {
        detail = h('tr', { role: 'row', class: 'detail' },
          h('td', { role: 'cell', colspan: 6 }, eventDetail(event)));
        row.after(detail);
      }
      button.setAttribute('aria-expanded', String(detail !== null));
      button.setAttribute('aria-label', `${detail ? 'Hide' : 'Show'} event ${seq}`);
      button.textContent = detail ? 'Hide' : 'Show';
    },
  }, 'Show');
  const topic = string('topic');
  const cell = (label, name, ...children) => (
    h('td', { role: 'cell', class: name, 'data-label': label }, ...children));
  const row = h('tr', { role: 'row' },
    cell('Seq', 'n seq', seq),
    cell('Time', 'when', time(string('received_at'))),
    cell('Topic', 'cut', h('a', {
      href: topicUrl(topic), onclick: (click) => onFollowClick(click, topic),
    }, foreign(topic))),
    cell('Event id', 'cut', foreign(string('event_id'))),
    cell('Source', 'cut', foreign(string('source'))),
    cell('Payload', 'payload', h('div', {},
      h('code', { dir: 'ltr' }, payload.slice(0, PREVIEW_CHARS_MAX)), button)));
  return { row, isOpen: () => detail !== null, last: () => detail ?? row };
}

function eventDetail(event) {
  const payload = event.get('payload');
  const whole = indent(payload);
  const text = h('pre', { tabindex: '0', role: 'group', 'aria-label': 'Payload', dir: 'ltr' },
    whole.slice(0, PAYLOAD_CHARS_MAX));
  const copyButton = h('button', {
    type: 'button', class: 'small', onclick: () => copy(payload, copyButton),
  }, 'Copy payload');
  const buttons = h('p', { class: 'buttons' }, copyButton);
  if (whole.length > PAYLOAD_CHARS_MAX) {
    const all = h('button', {
      type: 'button', class: 'small',
      onclick: () => { text.textContent = whole; all.remove(); },
    }, `Show all ${numbers.format(whole.length)} characters`);
    buttons.append(all);
  }
  const facts = ['topic', 'event_id', 'source', 'timestamp', 'received_at'].map((name) => h('div', {},
    h('dt', {}, name), h('dd', {}, h('bdi', {}, JSON.parse(event.get(name))))));
  return h('div', {}, h('dl', {}, ...facts), text, buttons);
}

// ----------------------------------------------------------------- publish

/** A random UUID, also where `crypto.randomUUID` is not: it is for secure contexts. */
function newId() {
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join('');
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}

const FIELDS = ['topic', 'event_id', 'source', 'payload'];

function markField(name, detail) {
  say($(`e-${name}`), detail);
  if (detail) $(`p-${name}`).setAttribute('aria-invalid', 'true');
  else $(`p-${name}`).removeAttribute('aria-invalid');
}

/** What came of it; a new element each time, so that the same words are read out again. */
function showOutcome(kind, title, text) {
  $('outcome').replaceChildren(h('p', { class: `outcome ${kind}` }, h('strong', {}, title), ` ${text}`));
}

async function publish(submit) {
  submit.preventDefault();
  for (const name of FIELDS) markField(name, '');
  const value = (name) => $(`p-${name}`).value;
  const payload = value('payload').trim();
  try {
    if (payload) JSON.parse(payload);
  } catch (error) {
    markField('payload', `This is not JSON: ${error.message}`);
    $('p-payload').focus();
    return showOutcome('bad', 'Not sent.', 'The payload is not JSON.');
  }
  const fields = FIELDS.slice(0, 3).map((name) => `"${name}":${JSON.stringify(value(name))}`);
  // The payload goes out as it was typed, every digit of it.
  if (payload) fields.push(`"payload":${payload}`);
  const button = $('publish').querySelector('[type=submit]');
  button.setAttribute('aria-disabled', 'true');
  try {
    const text = await ask('/publish?results=all', {
      method: 'POST', headers: { 'content-type': 'application/json' }, body: `{${fields.join()}}`,
    });
    const [result] = values(members(text).get('results')).map(members);
    const outcome = JSON.parse(result.get('status'));
    if (outcome === 'accepted') {
      showOutcome('good', 'Accepted',
        `and on disk, with seq ${result.get('seq')}. Publish it again: it will be a duplicate.`);
    } else if (outcome === 'duplicate') {
      showOutcome('known', 'Duplicate.',
        'This event is stored already, with the same content. It was counted, and not stored again.');
    } else if (outcome === 'conflict') {
      showOutcome('bad', 'Conflict.',
        'This id is stored in this topic with other content. The first content stays.');
    } else {
      showOutcome('bad', `${outcome}.`, text);
    }
  } catch (error) {
    for (const { field, detail } of error.errors ?? []) if (FIELDS.includes(field)) markField(field, detail);
    const others = (error.errors ?? []).filter(({ field }) => !FIELDS.includes(field));
    showOutcome('bad', error instanceof Refusal ? 'Refused.' : 'No reply.',
      [error.message, ...others.map(({ field, detail }) => `${field}: ${detail}`)].join(' '));
    $('publish').querySelector('[aria-invalid]')?.focus();
  } finally {
    button.removeAttribute('aria-disabled');
  }
}

// ----------------------------------------------------------- subscriptions

const subscriptions = {
  timer: 0,
  readAt: 0,

  /** Lag moves with the counters, but an acknowledgement moves no counter: see `onTick`. */
  onChange() {
    if (this.timer || document.hidden) return;
    const wait = Math.max(0, this.readAt + SUBSCRIPTIONS_PAUSE_MS - performance.now());
    this.timer = setTimeout(() => {
      this.timer = 0;
      this.read();
    }, this.readAt ? wait : 0);
  },

  onTick() {
    if (performance.now() - this.readAt > 3 * SUBSCRIPTIONS_PAUSE_MS) this.onChange();
  },

  async read() {
    this.readAt = performance.now();
    try {
      this.draw(JSON.parse(await ask('/subscriptions')).subscriptions);
      trouble('Subscriptions', null);
    } catch (error) {
      trouble('Subscriptions', error);
    }
  },

  draw(all) {
    $('subscriptions').hidden = all.length === 0;
    const shown = all.sort((a, b) => b.lag - a.lag).slice(0, SUBSCRIPTIONS_SHOWN_MAX);
    $('subscription-rows').replaceChildren(...shown.map((one) => h('tr', {},
      h('th', { scope: 'row', class: 'break' }, one.name),
      h('td', { class: 'break' }, one.topics.length === 0 ? 'all'
        : h('span', { title: one.topics.join('\n') }, h('bdi', {}, one.topics[0]),
          one.topics.length > 1 ? ` and ${one.topics.length - 1} more` : '')),
      h('td', { class: 'n' }, numbers.format(one.lag)),
      h('td', {}, one.acked_at ? time(one.acked_at) : 'never'))));
    const more = all.length - shown.length;
    say($('subscriptions-more'), more > 0 ? `${numbers.format(more)} more with less lag.` : '');
  },
};

// ------------------------------------------------------------------- start

/** What no frame tells: the age of the service and its clock. */
async function readService() {
  try {
    const { started_at, uptime_seconds, version } = JSON.parse(await ask('/stats'));
    history.startedAt = Date.parse(started_at);
    clockOffset = history.startedAt + 1000 * uptime_seconds - Date.now();
    $('service').replaceChildren(`Sekali ${version}, first started `, time(started_at));
    trouble('Service', null);
  } catch (error) {
    trouble('Service', error);
    setTimeout(readService, error.retryMs ?? 2_000);
    return;
  }
  await history.read();
}

function start() {
  const example = '{"topic": "user.login", "event_id": "evt-001", "source": "curl", "payload": {"user_id": "user-123"}}';
  const command = `curl -X POST ${location.origin}/publish -d '${example}'`;
  $('curl').textContent = command;
  $('curl-copy').addEventListener('click', () => copy(command, $('curl-copy')));
  $('p-event_id').value = newId();
  $('new-id').addEventListener('click', () => {
    $('p-event_id').value = newId();
    markField('event_id', '');
  });
  $('publish').addEventListener('submit', publish);
  $('topic-filter').addEventListener('input', () => stats && drawTopics());
  $('topic-form').addEventListener('submit', (submit) => {
    submit.preventDefault();
    if ($('topic-filter').value) follow($('topic-filter').value);
  });
  $('unfollow').addEventListener('click', (click) => onFollowClick(click, null));
  $('feed-pause').addEventListener('click', () => feed.setPaused(!feed.paused));
  window.addEventListener('popstate', onUrl);
  document.addEventListener('visibilitychange', onVisibility);
  new ResizeObserver(() => history.known && drawChart($('chart'), history.bars())).observe($('chart'));
  setInterval(() => {
    if (document.hidden) return;
    drawRate();
    subscriptions.onTick();
  }, 1_000);
  // Bars move on without an event, too.
  setInterval(() => { if (!document.hidden && history.known) history.draw(); }, MINUTE_MS);
  onUrl();
  onVisibility();
  readService();
}

start();
