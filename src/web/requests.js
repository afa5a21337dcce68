/**
 * Requests to the service. None waits for ever, and none fails in silence.
 */

import { $, h, say } from './dom.js';
import { fetchWithKey } from './key.js';

const ANSWER_SECONDS_MAX = 30;
export const RETRY_MS_MIN = 1_000;
export const RETRY_MS_MAX = 15_000;

/** A reply that is no success, in the words of its problem+json. */
export class Refusal extends Error {
  constructor(reply, text) {
    let problem = {};
    try { problem = JSON.parse(text) ?? {}; } catch { /* not from the service: a proxy's page */ }
    super(`${reply.status} – ${problem.detail ?? problem.reason ?? problem.title ?? reply.statusText}`);
    this.errors = [problem.errors ?? []].flat();
    this.retryMs = 1_000 * (Number(reply.headers.get('retry-after')) || 0);
  }
}

/** The text of a reply, or an error that can be shown. */
export async function ask(path, { signal, ...options } = {}) {
  let limit;
  let reply;
  let text;
  try {
    // Anew for each request: somebody may take a while to find a key.
    reply = await fetchWithKey(path, () => {
      limit = AbortSignal.timeout(1_000 * ANSWER_SECONDS_MAX);
      return { signal: AbortSignal.any([limit, signal].filter(Boolean)), ...options };
    });
    text = await reply.text();
  } catch {
    throw new Error(limit.aborted ? `No answer in ${ANSWER_SECONDS_MAX} seconds.` : 'The service cannot be reached.');
  }
  if (!reply.ok) throw new Refusal(reply, text);
  return text;
}

/**
 * What a part of the page shows, read again and again. However often it is
 * wanted, there is one request at a time, a pause after it, longer where the
 * service is slow, and none while the page is hidden. What fails is told at the
 * top of the page, and asked for again, less and less often.
 */
export class Reader {
  #wanted = false;
  #timer = 0;
  #asking = null;
  #notBefore = 0;
  #failures = 0;
  #trouble = h('p');

  /** `draw` gets the text at `path()`; what it throws is a failure, too. */
  constructor({ part, path, draw, pauseMs = 500 }) {
    Object.assign(this, { part, path, draw, pauseMs });
    document.addEventListener('visibilitychange', () => this.#next());
  }

  want() {
    this.#wanted = true;
    this.#next();
  }

  /** What was wanted, or is under way, will not be drawn. */
  cancel() {
    clearTimeout(this.#timer);
    this.#asking?.abort();
    this.#trouble.remove();
    this.#wanted = false;
    this.#timer = 0;
    this.#asking = null;
    this.#notBefore = 0;
    this.#failures = 0;
  }

  #next() {
    if (!this.#wanted || this.#asking || this.#timer || document.hidden) return;
    this.#timer = setTimeout(() => {
      this.#timer = 0;
      if (!document.hidden) this.#read();
    }, Math.max(0, this.#notBefore - performance.now()));
  }

  async #read() {
    const asking = new AbortController();
    const began = performance.now();
    let pauseMs;
    this.#asking = asking;
    this.#wanted = false;
    try {
      const text = await ask(this.path(), { signal: asking.signal });
      if (asking.signal.aborted) return;
      this.draw(text);
      this.#trouble.remove();
      this.#failures = 0;
      pauseMs = Math.max(this.pauseMs, performance.now() - began);
    } catch (error) {
      if (asking.signal.aborted) return;
      say(this.#trouble, `${this.part}: ${error.message}`);
      if (!this.#trouble.isConnected) $('problems').append(this.#trouble);
      this.#wanted = true;
      pauseMs = Math.max(error.retryMs ?? 0, Math.min(RETRY_MS_MIN * 2 ** this.#failures, RETRY_MS_MAX));
      this.#failures += 1;
    }
    this.#asking = null;
    this.#notBefore = performance.now() + pauseMs;
    this.#next();
  }
}
