/**
 * The stream of counters, which is there whenever somebody looks at the page.
 *
 * The browser itself comes back after a connection that broke. Here is what it
 * leaves undone: after a reply that is no stream, such as a 503, it gives up
 * for good; a connection that died without a word looks alive to it, since
 * pages do not get the beats of an idle stream; and a tab that nobody sees
 * would keep one of the six connections that a host gets.
 */

import { RETRY_MS_MAX, RETRY_MS_MIN, Reader } from './requests.js';

const FIRST_FRAME_MS_MAX = 15_000;
const SILENCE_MS_MAX = 60_000; // then it is opened anew, which costs little

/**
 * Calls `onState` with `connecting`, `live`, `reconnecting` or `paused`, and
 * `onFrame` with the counters, and with whether frames may be missing before.
 */
export function follow({ onState, onFrame }) {
  let source = null;
  let state = '';
  let retryMs = RETRY_MS_MIN;
  /** For the one thing to wait for. */
  let timer = 0;
  /** EventSource does not tell why; the health route does. */
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
    let isFirst = true;
    source?.close();
    source = new EventSource('/stats/stream');
    after(FIRST_FRAME_MS_MAX, retry);
    source.onmessage = ({ data }) => {
      after(SILENCE_MS_MAX, open);
      retryMs = RETRY_MS_MIN;
      become('live');
      onFrame(JSON.parse(data), isFirst);
      isFirst = false;
    };
    source.onerror = () => {
      isFirst = true;
      if (state === 'live') after(FIRST_FRAME_MS_MAX, retry);
      become('reconnecting');
      if (source.readyState === EventSource.CLOSED) retry();
    };
  }

  function retry() {
    source.close();
    become('reconnecting');
    why.want();
    after(retryMs, open);
    retryMs = Math.min(2 * retryMs, RETRY_MS_MAX);
  }

  function onVisibility() {
    become(document.hidden ? 'paused' : 'connecting');
    if (!document.hidden) return open();
    clearTimeout(timer);
    source?.close();
  }

  document.addEventListener('visibilitychange', onVisibility);
  onVisibility();
}
