/**
 * The dashboard and the API reference, in a real browser against the real service.
 *
 *     cargo build && (cd tests/web && npm ci && npm test)
 *
 * SEKALI_URL     a service that runs already; without it the tests start one
 * CHROMIUM       the browser
 * SCREENSHOTS    a directory for pictures of the pages
 */

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHash, randomUUID } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { chromium } from 'playwright-core';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const HOST = path.join(ROOT, 'target/debug/sekali-host');
const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const BROWSERS = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];
const WAIT_MS_MAX = 20_000;

// ----------------------------------------------------------------- harness

/** A service of our own, with its own state. */
class Service {
  constructor(...flags) {
    this.flags = flags;
    this.state = mkdtempSync(path.join(tmpdir(), 'sekali-web-'));
    this.port = 0;
  }

  async start() {
    assert.ok(existsSync(HOST), `${HOST} is missing: run \`cargo build\` first`);
    const args = ['--no-build', '--listen', `127.0.0.1:${this.port}`, '--state-dir', this.state, ...this.flags];
    this.child = spawn(HOST, args, { cwd: ROOT, stdio: ['ignore', 'pipe', 'pipe'] });
    this.ended = new Promise((resolve) => { this.child.once('close', resolve); });
    let log = '';
    this.child.stderr.on('data', (data) => { log += data; });
    const serving = new Promise((resolve) => {
      createInterface({ input: this.child.stdout }).on('line', (line) => {
        const [url] = /http:\/\/[\d.:]+/.exec(line) ?? [];
        if (line.startsWith('Serving ')) resolve(url);
      });
    });
    this.url = await Promise.race([serving, this.ended.then(() => null)]);
    assert.ok(this.url, `${HOST} did not start:\n${log}`);
    this.port = new URL(this.url).port;
  }

  async kill() {
    this.child.kill('SIGKILL');
    await this.ended;
  }

  async remove() {
    if (this.child) await this.kill();
    rmSync(this.state, { recursive: true, force: true });
  }
}

let browser;
let service = null;
let url = process.env.SEKALI_URL?.replace(/\/$/, '');

before(async () => {
  const executablePath = process.env.CHROMIUM ?? BROWSERS.find((file) => existsSync(file));
  assert.ok(executablePath && existsSync(executablePath),
    `No browser: ${executablePath ?? BROWSERS.join(', ')} is missing. CHROMIUM=… names another.`);
  browser = await chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-gpu'] });
  if (url) return;
  service = new Service();
  await service.start();
  url = service.url;
});

after(async () => {
  await browser?.close();
  await service?.remove();
});

/**
 * A test with a page of its own. What no page may do fails each of them: ask
 * another origin, throw, or complain on the console.
 */
function pageTest(name, options, body) {
  test(name, { skip: options.skip && process.env.SEKALI_URL ? 'needs a service of its own' : false }, async () => {
    const context = await browser.newContext({
      viewport: { width: 1280, height: 900 }, locale: 'en-GB', ...options.context,
    });
    context.setDefaultTimeout(WAIT_MS_MAX);
    const complaints = [];
    const foreign = [];
    await context.route('**/*', (route) => {
      const asked = new URL(route.request().url());
      if (asked.hostname === '127.0.0.1' || asked.origin === new URL(url).origin) return route.continue();
      foreign.push(asked.href);
      return route.abort();
    });
    const page = await context.newPage();
    page.on('pageerror', (error) => complaints.push(error.stack));
    page.on('console', (message) => {
      if (['error', 'warning'].includes(message.type())) complaints.push(message.text());
    });
    try {
      await body(page);
    } catch (error) {
      error.message += `\nThe page said: ${JSON.stringify(complaints)}`;
      throw error;
    } finally {
      await context.close();
    }
    assert.deepEqual(foreign, [], 'requests to other origins');
    if (!options.mayComplain) assert.deepEqual(complaints, [], 'errors on the console');
  });
}

const json = (value) => ({ method: 'POST', body: JSON.stringify(value) });

async function publish(to, ...events) {
  const reply = await fetch(`${to}/publish`, json(events));
  assert.equal(reply.status, 200, await reply.text());
}

const event = (topic, fields = {}) => ({ topic, event_id: randomUUID(), source: 'test', ...fields });

/** Waits until an element has this text. */
const shows = (page, selector, text) => page.locator(selector).filter({ hasText: text }).first().waitFor();

async function openDashboard(page, at = url, query = '') {
  await page.goto(`${at}/${query}`);
  await shows(page, '#state', 'Live');
}

/** Waits until it is so. */
async function until(isSo) {
  for (const end = Date.now() + WAIT_MS_MAX; !await isSo();) {
    assert.ok(Date.now() < end, 'in time');
    await new Promise((resolve) => { setTimeout(resolve, 50); });
  }
}

const number = async (page, id) => Number((await page.locator(`#${id}`).textContent()).replace(/\D/g, ''));

/** Waits until a counter is `least` or more: others may publish meanwhile. */
async function reaches(page, id, least) {
  await page.waitForFunction(([name, value]) => (
    Number(document.getElementById(name).textContent.replace(/\D/g, '')) >= value), [id, least]);
}

// --------------------------------------------------------------- dashboard

pageTest('an empty service explains itself', { skip: true }, async (page) => {
  await openDashboard(page);
  await shows(page, '#curl', `curl -X POST ${url}/publish -d '{"topic"`);
  await shows(page, '#feed-empty', 'No event is stored.');
  await shows(page, '#chart-text', 'No event in the last 24 hours.');
  assert.equal(await page.locator('#subscriptions').isVisible(), false);
  await publish(url, event('first'));
  await page.locator('#start').waitFor({ state: 'hidden' });
});

pageTest('the form publishes, and the counters follow', {}, async (page) => {
  await openDashboard(page);
  const topic = `form ${randomUUID()}`;
  const before = {};
  for (const id of ['received', 'unique_processed', 'duplicate_dropped', 'conflicts']) {
    before[id] = await number(page, id);
  }
  await page.evaluate(() => { window.notReloaded = true; });
  const id = await page.getByLabel('Event id', { exact: true }).inputValue();
  assert.match(id, /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  await page.getByLabel('Topic', { exact: true }).fill(topic);
  const payload = '{"exact": 12345678901234567890.10, "text": "\\u0061"}';
  await page.getByLabel('Payload (JSON)').fill(payload);
  const send = page.getByRole('button', { name: 'Publish' });

  await send.click();
  await shows(page, '#outcome', /Accepted and on disk, with seq \d+/);
  await reaches(page, 'received', before.received + 1);
  await reaches(page, 'unique_processed', before.unique_processed + 1);

  await send.click();
  await shows(page, '#outcome', 'Duplicate.');
  await reaches(page, 'duplicate_dropped', before.duplicate_dropped + 1);
  assert.equal(await page.getByLabel('Event id', { exact: true }).inputValue(), id, 'the id stays');

  await page.getByLabel('Payload (JSON)').fill('{"exact": 1}');
  await send.click();
  await shows(page, '#outcome', 'Conflict.');
  await reaches(page, 'conflicts', before.conflicts + 1);

  // The first content stays, with every digit.
  const row = page.locator('#feed-rows tr', { hasText: topic });
  await row.getByRole('button', { name: 'Show event' }).click();
  assert.equal(await page.locator('#feed .detail pre').textContent(),
    '{\n  "exact": 12345678901234567890.10,\n  "text": "\\u0061"\n}');
  assert.equal(await page.evaluate(() => window.notReloaded), true);
});

pageTest('what is refused is told', { mayComplain: true }, async (page) => {
  await openDashboard(page);
  const before = await number(page, 'rejected');
  const send = page.getByRole('button', { name: 'Publish' });
  await page.getByLabel('Payload (JSON)').fill('{"a": }');
  await send.click();
  await shows(page, '#e-payload', 'This is not JSON');
  await page.getByLabel('Payload (JSON)').fill('');
  await page.getByLabel('Topic', { exact: true }).fill('');
  await send.click();
  await shows(page, '#outcome', /Refused\. 422/);
  await shows(page, '#e-topic', /topic/);
  assert.equal(await page.getByLabel('Topic', { exact: true }).getAttribute('aria-invalid'), 'true');
  await reaches(page, 'rejected', before + 1);
});

pageTest('a followed topic shows its events only', {}, async (page) => {
  const [followed, other] = [`followed ${randomUUID()}`, `other ${randomUUID()}`];
  await publish(url, event(followed), event(other), event(followed));
  await openDashboard(page);
  const topics = async () => new Set(await page.locator('#feed-rows td[data-label=Topic]').allTextContents());
  await page.locator('#feed-rows').getByRole('link', { name: followed }).first().click();
  await page.waitForURL((at) => at.searchParams.get('topic') === followed);
  await shows(page, '#following', followed);
  await page.locator('#feed-rows tr').nth(1).waitFor();
  assert.deepEqual(await topics(), new Set([followed]));

  const newest = event(followed);
  await publish(url, event(other), newest);
  await shows(page, '#feed-rows tr.new', newest.event_id);
  assert.deepEqual(await topics(), new Set([followed]));

  await page.getByRole('link', { name: 'Show all topics' }).click();
  await shows(page, '#feed-rows tr', other);
  assert.equal(new URL(page.url()).search, '');
  await page.goBack();
  await shows(page, '#following', followed);
  await page.locator('#feed-rows tr').nth(2).waitFor();
  assert.deepEqual(await topics(), new Set([followed]));

  // A topic that is not among those shown is followed by its name.
  await page.getByLabel('Filter, or a whole name to follow').fill(other);
  await page.getByRole('button', { name: 'Follow' }).click();
  await shows(page, '#following', other);
  await page.locator('#feed-rows tr').nth(1).waitFor();
  assert.deepEqual(await topics(), new Set([other]));
});

pageTest('topics, the chart and its table show what was published', { skip: true }, async (page) => {
  const topic = `chart ${randomUUID()}`;
  const twice = event(topic);
  await publish(url, twice, event(topic), event(topic));
  await publish(url, twice);
  await openDashboard(page);
  // What is shown first may be of half a second ago, before the last publish.
  const row = page.locator('#topic-rows tr', { hasText: topic })
    .filter({ has: page.locator('td', { hasText: /^4$/ }) });
  await row.waitFor();
  assert.deepEqual(await row.locator('td').allTextContents(), ['4', '1']);
  await page.locator('#chart svg rect.stored').last().waitFor();
  await page.locator('#chart svg rect.duplicates').last().waitFor();
  await page.getByText('Show as a table').click();
  // The service is younger than 24 hours, so the bars are all there is.
  await page.waitForFunction(() => {
    const count = (cell) => Number(cell.textContent.replace(/\D/g, ''));
    const bars = [...document.querySelectorAll('#chart-rows td:nth-child(2)')].map(count);
    return bars.reduce((sum, bar) => sum + bar, 0) === count(document.getElementById('received'));
  });
  await page.getByLabel('Filter, or a whole name to follow').fill('no such topic');
  await shows(page, '#topics-more', 'None of the topics');
});

pageTest('the feed can be paused', {}, async (page) => {
  const topic = `pause ${randomUUID()}`;
  const [first, second] = [event(topic), event(topic)];
  await publish(url, first);
  await openDashboard(page, url, `?${new URLSearchParams({ topic })}`);
  await shows(page, '#feed-rows tr', first.event_id);
  await page.getByRole('button', { name: 'Pause' }).click();
  await publish(url, second);
  await shows(page, '#feed-state', 'Paused, 1 newer');
  assert.equal(await page.locator('#feed-rows tr').count(), 1);
  await page.getByRole('button', { name: 'Resume' }).click();
  await shows(page, '#feed-rows tr', second.event_id);
});

pageTest('a search finds, goes further, and gives way to the newest', {}, async (page) => {
  const topic = `search ${randomUUID()}`;
  const query = `?${new URLSearchParams({ topic })}`;
  const needle = `Needle "${randomUUID()}"`;
  const line = (fields) => event(topic, { payload: fields });
  const meant = Array.from({ length: 60 }, (_, index) => line({ level: 'error', message: `${needle} ${index}` }));
  await publish(url, line({ msg: 'hay' }), ...meant, line({ log: 'hay' }));
  await openDashboard(page, url, query);
  const rows = page.locator('#feed-rows tr:not(.detail)');
  const text = page.getByLabel('Text in the payload or the event id');
  await text.fill(needle.toUpperCase());
  await text.press('Enter');
  await shows(page, '#feed-title', 'Found events');
  await shows(page, '#search-state', '50 found, 51 events looked at, back to');
  assert.equal(await rows.count(), 50);
  // A line for people; the JSON on demand.
  assert.equal(await rows.first().locator('.payload .line').textContent(), `${needle} 59`);
  await page.getByRole('button', { name: 'Show event' }).first().click();
  assert.deepEqual(JSON.parse(await page.locator('.detail pre').textContent()), meant[59].payload);

  // What comes is not found: the page before was of what was there.
  await publish(url, line({ message: needle }));
  await page.getByRole('button', { name: 'Search further' }).click();
  await shows(page, '#search-state', '60 found, 62 events looked at, and there are no more.');
  assert.equal(await rows.count(), 60);
  assert.equal(await page.getByRole('button', { name: 'Search further' }).isVisible(), false);
  assert.equal(await page.evaluate(() => document.activeElement.id), 'search-end');

  await text.fill(`no ${needle}`);
  await text.press('Enter');
  await shows(page, '#feed-empty', 'Nothing was found.');

  // Of a time only, without a text.
  await text.fill('');
  await page.getByLabel('Received', { exact: true }).selectOption('in the last 15 minutes');
  await page.getByRole('button', { name: 'Search', exact: true }).click();
  await shows(page, '#search-state', '50 found, 50 events looked at, back to');
  await page.getByLabel('Received', { exact: true }).selectOption('between …');
  await page.getByLabel('Before').fill('2020-01-01T00:00:00');
  await page.getByRole('button', { name: 'Search', exact: true }).click();
  await shows(page, '#feed-empty', 'Nothing was found.');

  await page.getByRole('button', { name: 'Show the newest' }).click();
  await shows(page, '#feed-title', 'Newest events');
  await rows.nth(49).waitFor();
  assert.equal(await text.inputValue(), '');
  const live = line({ body: 'live' });
  await publish(url, live);
  await shows(page, '#feed-rows tr.new', live.event_id);
});

pageTest('an empty page of a search is not taken for its end', {}, async (page) => {
  const pages = {
    null: { events: [], count: 0, next: '7', searched: { events: 20000, seq: 7, received_at: '2026-01-02T03:04:05.678Z', complete: false } },
    7: { events: [], count: 0, next: '1', searched: { events: 6, seq: 1, received_at: '2026-01-02T03:04:05.678Z', complete: true } },
  };
  await page.route('**/events?*contains=*', (route) => route.fulfill({
    json: pages[new URL(route.request().url()).searchParams.get('after')],
  }));
  await openDashboard(page);
  await page.getByLabel('Text in the payload or the event id').fill('rare');
  await page.getByRole('button', { name: 'Search', exact: true }).click();
  await shows(page, '#search-state', '0 found, 20,000 events looked at, back to');
  await shows(page, '#feed-empty', 'Nothing was found so far.');
  await page.getByRole('button', { name: 'Search further' }).click();
  await shows(page, '#search-state', '0 found, 20,006 events looked at, and there are no more.');
});

pageTest('a topic has its rate drawn', {}, async (page) => {
  const topic = `rate ${randomUUID()}`;
  const twice = event(topic);
  await publish(url, twice);
  await openDashboard(page);
  await page.locator('#topic-rows tr', { hasText: topic }).waitFor();
  await publish(url, event(topic), twice);
  await page.locator('#topic-rows tr', { hasText: topic })
    .getByRole('img', { name: /[23] received in the last 24 hours/ }).waitFor();
});

pageTest('the history of a topic is there when the page is opened', { skip: true, mayComplain: true }, async (page) => {
  const own = new Service();
  try {
    await own.start();
    const topic = 'day';
    const before = event(topic);
    await publish(own.url, before, event(topic), event('another'));
    await until(async () => {
      const minutes = await (await fetch(`${own.url}/stats/history`)).json();
      return minutes.some((minute) => minute.by_topic?.[topic] === 2);
    });
    await publish(own.url, before, event(topic));
    await page.goto(own.url);
    const drawn = (count) => page.locator('#topic-rows tr', { hasText: topic })
      .getByRole('img', { name: `${count} received in the last 24 hours` }).waitFor();
    await drawn(4);
    await publish(own.url, event(topic));
    await drawn(5);
  } finally {
    await own.remove();
  }
});

pageTest('subscriptions are listed with their lag', {}, async (page) => {
  const name = `web-${randomUUID()}`;
  const topic = `lag ${randomUUID()}`;
  const made = await fetch(`${url}/subscriptions/${name}`, { ...json({ topics: [topic] }), method: 'PUT' });
  assert.equal(made.status, 201);
  try {
    await publish(url, event(topic), event(topic));
    await openDashboard(page);
    const row = page.locator('#subscription-rows tr', { hasText: name });
    await row.waitFor();
    assert.deepEqual(await row.locator('td').allTextContents(), [topic, '2', 'never']);
  } finally {
    await fetch(`${url}/subscriptions/${name}`, { method: 'DELETE' });
  }
});

pageTest('values of events are text, whatever they hold', {}, async (page) => {
  const bad = '<img src=x onerror="window.ran=1"><script>window.ran=2</script>';
  const hostile = event(`${bad}${randomUUID()}`, { source: bad, payload: { [bad]: bad } });
  await publish(url, hostile);
  await openDashboard(page, url, `?${new URLSearchParams({ topic: hostile.topic })}`);
  await page.getByRole('button', { name: 'Show event' }).click();
  assert.deepEqual(JSON.parse(await page.locator('.detail pre').textContent()), hostile.payload);
  assert.equal(await page.locator('#following-topic').textContent(), hostile.topic);
  assert.equal(await page.locator('main img, main script').count(), 0);
  assert.equal(await page.evaluate(() => window.ran), undefined);
});

pageTest('a hidden tab gives its connection back', {}, async (page) => {
  await openDashboard(page);
  const hide = (hidden) => page.evaluate((value) => {
    Object.defineProperty(document, 'hidden', { value, configurable: true });
    document.dispatchEvent(new Event('visibilitychange'));
  }, hidden);
  const before = await number(page, 'received');
  const ended = page.waitForEvent('requestfailed', (request) => request.url().endsWith('/stats/stream'));
  await hide(true);
  await ended;
  await shows(page, '#state', 'Paused');
  await publish(url, event('hidden'));
  await hide(false);
  await shows(page, '#state', 'Live');
  await reaches(page, 'received', before + 1);
});

pageTest('the page comes back with the service', { skip: true, mayComplain: true }, async (page) => {
  const own = new Service();
  try {
    await own.start();
    await publish(own.url, event('before'));
    await openDashboard(page, own.url);
    await reaches(page, 'received', 1);
    await own.kill();
    await shows(page, '#state', 'Reconnecting');
    await own.start();
    await shows(page, '#state', 'Live');
    assert.equal(await number(page, 'received'), 1, 'the counters survived');
    const later = event('after');
    await publish(own.url, later);
    await reaches(page, 'received', 2);
    await shows(page, '#feed-rows tr', later.event_id);
    await page.locator('#problems p').first().waitFor({ state: 'detached' });
  } finally {
    await own.remove();
  }
});

pageTest('a service with keys asks for one, and the tab keeps it', { skip: true, mayComplain: true }, async (page) => {
  const key = 'sekali_browser-key';
  const sha256 = createHash('sha256').update(key).digest('hex');
  const own = new Service('--variable', `api_keys=${JSON.stringify({ name: 'b', sha256, scopes: ['admin'] })}`);
  try {
    await own.start();
    await page.goto(own.url);
    await page.locator('dialog').waitFor();
    await page.locator('#key').fill('sekali_another');
    await page.locator('dialog button').click();
    await shows(page, '#key-wrong', 'not known');
    if (process.env.SCREENSHOTS) await page.screenshot({ path: path.join(process.env.SCREENSHOTS, 'key.png') });
    await page.locator('#key').fill(key);
    await page.locator('#key').press('Enter');
    await shows(page, '#state', 'Live');
    await page.locator('#publish [type=submit]').click();
    await shows(page, '#outcome', 'Accepted');
    await reaches(page, 'received', 1);
    await page.reload();
    await shows(page, '#state', 'Live');
    assert.equal(await page.locator('dialog').count(), 0);
    await page.goto(`${own.url}/docs`);
    await shows(page, '#reference', 'POST');
    assert.equal(await page.locator('dialog').count(), 0);
    // Links to data have no key by themselves.
    await page.locator('header a[href="/metrics"], nav a[href="/metrics"]').first().click();
    await shows(page, 'body', 'sekali_events_total');
    await page.goBack();
    await shows(page, '#reference', 'POST');
  } finally {
    await own.remove();
  }
});

// ------------------------------------------------------------ what goes wrong

pageTest('a stream that is refused is asked for again', { mayComplain: true }, async (page) => {
  let refused = 0;
  await page.route('**/stats/stream', (route) => (
    (refused += 1) <= 2 ? route.fulfill({ status: 503, body: 'busy' }) : route.fallback()));
  await page.goto(url);
  await shows(page, '#state', 'Reconnecting');
  await shows(page, '#problems p', 'Live counters');
  await shows(page, '#state', 'Live');
  await page.locator('#problems p').waitFor({ state: 'detached' });
});

pageTest('a stream that died in silence is opened anew', {}, async (page) => {
  await page.clock.install();
  await openDashboard(page);
  const opened = page.waitForRequest('**/stats/stream');
  await page.clock.fastForward('01:01');
  await opened;
  assert.equal(await page.locator('#state').textContent(), 'Live');
});

pageTest('no request is made while the same is under way', {}, async (page) => {
  const under = new Map();
  let most = 0;
  for (const at of ['/events?**', '/stats/history', '/subscriptions']) {
    await page.route(`**${at}`, async (route) => {
      under.set(at, (under.get(at) ?? 0) + 1);
      most = Math.max(most, under.get(at));
      await new Promise((resolve) => { setTimeout(resolve, 2_500); });
      under.set(at, under.get(at) - 1);
      await route.fallback().catch(() => {});
    });
  }
  await openDashboard(page);
  for (let round = 0; round < 14; round += 1) {
    await publish(url, event('busy'));
    await page.waitForTimeout(500);
  }
  assert.equal(most, 1);
  await page.unrouteAll({ behavior: 'ignoreErrors' });
});

pageTest('an event is sent once however often the button is pressed', {}, async (page) => {
  await openDashboard(page);
  let sent = 0;
  await page.route('**/publish*', async (route) => {
    sent += 1;
    await page.waitForTimeout(500);
    await route.fallback();
  });
  await page.getByRole('button', { name: 'Publish' }).dblclick();
  await shows(page, '#outcome', 'Accepted');
  assert.equal(sent, 1);
});

pageTest('names with odd characters are followed', {}, async (page) => {
  const odd = event(` a&b=c#d+e%20f/../?"'<\n>😀\u202e${randomUUID()} `);
  odd.event_id = odd.topic;
  await publish(url, odd, event('other'));
  await openDashboard(page);
  const name = page.locator('#feed-rows td[data-label=Topic] a bdi').filter({ hasText: odd.topic.slice(-20).trim() });
  await name.click();
  for (const reload of [false, true]) {
    if (reload) await page.reload();
    await page.locator('#feed-rows tr').nth(1).waitFor({ state: 'detached' });
    assert.equal(await name.textContent(), odd.topic);
    assert.equal(await page.locator('#following-topic').textContent(), odd.topic);
  }
});

pageTest('a jump within the page leaves the feed as it is', {}, async (page) => {
  await publish(url, event('jump'));
  await openDashboard(page);
  await page.getByRole('button', { name: 'Show event' }).first().click();
  await page.getByRole('button', { name: 'Pause' }).click();
  await page.getByText('Skip to the content').press('Enter');
  await page.waitForURL('**#main');
  assert.equal(await page.locator('#feed .detail').count(), 1);
  assert.equal(await page.locator('#feed-pause').textContent(), 'Resume');
});

pageTest('a button that copied has its name back', {}, async (page) => {
  await publish(url, event('copy'));
  await openDashboard(page);
  await page.getByRole('button', { name: 'Show event' }).first().click();
  const button = page.locator('#feed .detail .buttons button');
  await button.click();
  await button.filter({ hasText: /^Copied$/ }).click();
  await button.filter({ hasText: /^Copy payload$/ }).waitFor();
});

pageTest('a payload that grows when it is indented is shown', {}, async (page) => {
  const topic = `deep ${randomUUID()}`;
  const deep = `${'['.repeat(450)}${'1,'.repeat(1_000_000)}1${']'.repeat(450)}`;
  const body = JSON.stringify(event(topic)).replace('}', `,"payload":${deep}}`);
  assert.equal((await fetch(`${url}/publish`, { method: 'POST', body })).status, 200);
  await openDashboard(page, url, `?${new URLSearchParams({ topic })}`);
  await page.getByRole('button', { name: 'Show event' }).click();
  assert.equal((await page.locator('.detail pre').textContent()).length, 100_000);
  await page.getByRole('button', { name: 'Show all of 2,000,901 characters' }).waitFor();
});

pageTest('the history is counted in the right bars', {}, async (page) => {
  const MINUTE = 60_000;
  const minutes = [300, 200, 100].map((ago) => Math.floor(Date.now() / MINUTE - ago) * MINUTE);
  const bars = minutes.map((at) => Math.floor(at / (15 * MINUTE)));
  const counts = (stored, duplicates) => (
    { received: stored + duplicates, unique_processed: stored, duplicate_dropped: duplicates });
  const totals = [[50, 0], [101, 0], [201, 20]];
  const history = minutes.map((at, index) => (
    { minute: new Date(at).toISOString().replace(':00.000Z', 'Z'), ...counts(...totals[index]) }));
  const frame = { ...counts(210, 20), conflicts: 0, rejected: 0, topic_count: 0, topics: [] };
  let age = 0;
  await page.route('**/stats', (route) => route.fulfill({
    json: { started_at: new Date(Date.now() - age).toISOString(), uptime_seconds: age / 1000, version: '0' },
  }));
  await page.route('**/stats/history', (route) => route.fulfill({ json: history }));
  await page.route('**/stats/stream', (route) => route.fulfill({
    contentType: 'text/event-stream', body: `data: ${JSON.stringify(frame)}\n\n`,
  }));
  // One counts for the minute of a snapshot, the others for the snapshot before.
  // What came before the first is older, unless the service is not.
  for (const [hours, first] of [[48, 50], [10, 100], [23.9, 100]]) {
    age = hours * 60 * MINUTE;
    await page.goto(url);
    await page.locator('#chart-rows tr').first().waitFor({ state: 'attached' });
    const rows = await page.locator('#chart-rows tr').evaluateAll((all) => all.map((row) => [
      Date.parse(row.querySelector('time').dateTime) / (15 * 60_000),
      ...[...row.querySelectorAll('td')].map((cell) => Number(cell.textContent)),
    ]));
    assert.deepEqual(rows, [[bars[2], 10, 10, 0], [bars[1], 120, 100, 20], [bars[0], first, first, 0]]);
  }
});

/** Opens the page on a store, replaces that, and expects the events of the other alone. */
async function replaceStore(page, whileFirst = async () => {}, after = async () => {}) {
  const own = new Service();
  try {
    await own.start();
    const old = event('old');
    await publish(own.url, old);
    await whileFirst();
    await openDashboard(page, own.url);
    await shows(page, '#feed-rows tr', old.event_id);
    await own.kill();
    await after();
    rmSync(own.state, { recursive: true });
    await own.start();
    const [one, two] = [event('new'), event('new')];
    await publish(own.url, one, two);
    await shows(page, '#feed-rows tr', one.event_id);
    assert.equal(await page.locator('#feed-rows tr').count(), 2);
  } finally {
    await own.remove();
  }
}

pageTest('another store is another history', { skip: true, mayComplain: true }, (page) => replaceStore(page));

pageTest('another store is noticed by a page that never heard of the first', { skip: true, mayComplain: true }, (page) => (
  replaceStore(page, () => page.route('**/stats', (route) => route.abort()), () => page.unroute('**/stats'))));

// --------------------------------------------------------------- reference

pageTest('the reference has every operation', {}, async (page) => {
  const { paths } = await (await fetch(`${url}/openapi.json`)).json();
  const methods = ['get', 'put', 'post', 'delete', 'options', 'head', 'patch', 'trace'];
  const expected = Object.entries(paths).flatMap(([at, item]) => (
    Object.keys(item).filter((key) => methods.includes(key)).map((method) => `${method.toUpperCase()} ${at}`)));
  await page.goto(`${url}/docs`);
  await page.locator('.operation').first().waitFor();
  const heads = await page.locator('.operation h3').evaluateAll((all) => all.map((head) => (
    `${head.querySelector('.method').textContent} ${head.querySelector('code').textContent}`)));
  assert.deepEqual(heads.sort(), expected.sort());
  const links = page.locator('#contents a .method');
  assert.equal(await links.count(), expected.length);
  for (const target of await page.locator('#contents a').evaluateAll((all) => all.map((link) => link.hash.slice(1)))) {
    assert.equal(await page.locator(`[id="${target}"]`).count(), 1, `#${target}`);
  }
});

pageTest('the reference sends requests', {}, async (page) => {
  const topic = `reference ${randomUUID()}`;
  await page.goto(`${url}/docs`);
  const operation = (method, at) => page.locator('.operation').filter({
    has: page.getByRole('link', { name: `Link to ${method} ${at}`, exact: true }),
  });
  const send = async (one) => {
    await one.getByRole('button', { name: 'Send' }).click();
    await one.locator('.try [role=status]').filter({ hasText: '200 OK' }).waitFor();
    return one.locator('pre[aria-label=Body]');
  };

  const publishing = operation('POST', '/publish');
  await publishing.getByText('Try it').click();
  await publishing.getByLabel('Body', { exact: true }).fill(JSON.stringify(event(topic)));
  await publishing.getByLabel('results (query)').selectOption('all');
  await shows(publishing, 'pre[aria-label="curl command"]', `curl -X POST '${url}/publish?results=all'`);
  await (await send(publishing)).filter({ hasText: '"status": "accepted"' }).waitFor();

  const reading = operation('GET', '/events');
  await reading.getByText('Try it').click();
  await reading.getByLabel('topic (query)').fill(topic);
  await (await send(reading)).filter({ hasText: '"count": 1' }).waitFor();
  await reading.getByLabel('Accept').selectOption('application/x-ndjson');
  await (await send(reading)).filter({ hasText: /^\{"seq":\d+/ }).waitFor();

  const stream = operation('GET', '/events/stream');
  await stream.getByText('Try it').click();
  await stream.getByLabel(/^topic \(query/).fill(topic);
  const body = await send(stream);
  await body.filter({ hasText: topic }).waitFor();
  const live = event(topic);
  await publish(url, live);
  await body.filter({ hasText: live.event_id }).waitFor();
  await stream.getByRole('button', { name: 'Stop' }).click();
  await stream.locator('.try [role=status]').filter({ hasText: 'stopped' }).waitFor();
});

test('a page is for those who ask for HTML', async () => {
  const get = (at, headers) => fetch(`${url}${at}`, { headers });
  const text = await get('/', { accept: '*/*' });
  assert.match(text.headers.get('content-type'), /^text\/plain/);
  for (const at of ['/', '/docs']) {
    const page = await get(at, { accept: 'text/html,application/xhtml+xml,*/*;q=0.8' });
    assert.match(page.headers.get('content-type'), /^text\/html/);
    assert.match(page.headers.get('content-security-policy'), /default-src 'none'; script-src 'self'/);
  }
});

// ----------------------------------------------------------- accessibility

for (const [theme, size, viewport] of [
  ['light', 'desktop', { width: 1280, height: 900 }],
  ['dark', 'desktop', { width: 1280, height: 900 }],
  ['light', 'phone', { width: 360, height: 740 }],
  ['dark', 'phone', { width: 360, height: 740 }],
]) {
  // Without motion, since a row that is still changing its colour has no contrast to speak of.
  const context = { viewport, colorScheme: theme, reducedMotion: 'reduce' };
  pageTest(`everybody can use the pages: ${theme}, ${size}`, { context }, async (page) => {
    const inspect = async (name) => {
      if (process.env.SCREENSHOTS) {
        await page.screenshot({ path: path.join(process.env.SCREENSHOTS, `${name}-${theme}-${size}.png`), fullPage: true });
      }
      const { violations } = await page.evaluate(`${AXE}; axe.run({ resultTypes: ['violations'] })`);
      const found = violations.filter(({ impact }) => ['serious', 'critical'].includes(impact));
      assert.deepEqual(found.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(' ')}`), []);
      const beyond = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
      assert.ok(beyond <= 0, `${name} is ${beyond} pixels wider than the window`);
    };

    const long = event('topic-'.repeat(42), { event_id: 'x'.repeat(219) + randomUUID(), payload: { wide: 'y'.repeat(999) } });
    await publish(url, long, long);
    await openDashboard(page);
    const row = page.locator('#feed-rows tr', { hasText: long.event_id });
    await row.getByRole('button', { name: 'Show event' }).click();
    await page.getByText('Show as a table').click();
    await page.locator('#chart svg').waitFor();
    await inspect('dashboard');

    await page.getByLabel('Received', { exact: true }).selectOption('between …');
    await page.getByLabel('Text in the payload or the event id').fill(long.event_id);
    await page.getByRole('button', { name: 'Search', exact: true }).click();
    await shows(page, '#feed-title', 'Found events');
    await shows(page, '#search-state', '1 found');
    await inspect('search');

    await page.goto(`${url}/docs`);
    const operation = page.locator('#publish');
    await operation.getByText('Try it').click();
    await operation.locator('.replies summary').first().click();
    await operation.getByRole('button', { name: 'Send' }).click();
    await operation.locator('.try [role=status]').filter({ hasText: '200 OK' }).waitFor();
    await inspect('reference');
  });
}
