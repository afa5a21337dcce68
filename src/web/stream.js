/**
 * The stream of counters, which is there whenever somebody looks at the page.
 *
 * It is read here and not by an `EventSource`, which can send no key and does not tell
 * why it fails. A connection that died without a word looks alive, so one that is
 * silent for long is opened anew; and a tab that nobody sees has none, since it would
 * keep one of the six that a host gets.
 */

import { fetchWithKey } from './key.js';
import { RETRY_MS_MAX, RETRY_MS_MIN, Reader, Refusal } from './requests.js';

const FIRST_FRAME_MS_MAX = 15_000;
const SILENCE_MS_MAX = 60_000; // then it is opened anew, which costs little

/** The data of each message of an event stream. */
async function* messages(path, signal) {
  const reply = await fetchWithKey(path, () => ({ signal, headers: { accept: 'text/event-stream' } }));
  if (!reply.ok) throw new Refusal(reply, await reply.text());
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    const blocks = (rest + part.value).split('\n\n');
    rest = blocks.pop();
    for (const block of blocks) {
      const data = block.split('\n').filter((line) => line.startsWith('data: ')).map((line) => line.slice(6));
      if (data.length > 0) yield data.join('\n');
    }
  }
}

/**
 * Calls `onState` with `connecting`, `live`, `reconnecting` or `paused`, and
 * `onFrame` with the counters, and with whether frames may be missing before.
 */
export function follow({ onState, onFrame }) {
  /** The connection that is open. */
  let opened = null;
  let state = '';
  let retryMs = RETRY_MS_MIN;
  /** For the one thing to wait for. */
  let timer = 0;
  /** A connection that breaks does not tell why; the health route may. */
  const why = new Reader({
    part: 'Live counters',
    path: () => '/health',
    draw() { throw new Error('The service is well, but no frame comes; a proxy may hold them back.'); },
  });

  function become(next) {
    if (next === state) return;
    state = next;
    if (state !== 'reconnecting') why.cancel();
    onState(state);
  }

  function after(ms, act) {
    clearTimeout(timer);
    timer = setTimeout(act, ms);
  }

  function open() {
    opened?.abort();
    opened = new AbortController();
    after(FIRST_FRAME_MS_MAX, retry);
    listen(opened.signal);
  }

  async function listen(signal) {
    let isFirst = true;
    try {
      for await (const data of messages('/stats/stream', signal)) {
        if (signal.aborted) return;
        after(SILENCE_MS_MAX, open);
        retryMs = RETRY_MS_MIN;
        become('live');
        onFrame(JSON.parse(data), isFirst);
        isFirst = false;
      }
    } catch (error) {
      // Why, the health route tells. A service that is there may want some peace.
      if (!(error instanceof Refusal)) retryMs = RETRY_MS_MIN;
    }
    if (!signal.aborted) retry();
  }

  function retry() {
    opened.abort();
    become('reconnecting');
    why.want();
    after(retryMs, open);
    retryMs = Math.min(2 * retryMs, RETRY_MS_MAX);
  }

  function onVisibility() {
    become(document.hidden ? 'paused' : 'connecting');
    if (!document.hidden) return open();
    clearTimeout(timer);
    opened?.abort();
  }

  document.addEventListener('visibilitychange', onVisibility);
  onVisibility();
}
