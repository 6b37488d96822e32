"use strict";
// The server's events as a stream: one request that waits, and the next when it is answered. Nothing is polled.
const WAIT_S = 30;
const FIRST_MS = 1000;
const LATEST_MS = 30_000;

/**
 * Calls `heard(events)` for what happens from now on, and `lost(error)` when the server is away; comes back by itself.
 * `ask(target, {waitMs, signal})` is one GET; `sleep(ms, signal)` ends early with it. Ends when `signal` is aborted.
 */
async function follow({ ask, heard, lost, sleep, signal }) {
  let after = null;
  let pause = FIRST_MS;
  while (!signal.aborted) {
    try {
      if (after === null) {
        const newest = (await ask("/events?limit=1", { signal })).events;
        after = newest.length ? newest[newest.length - 1].seq : 0;
        heard([]); // it is there: whatever was missed is looked at
      }
      const target = `/events?after=${after}&wait_s=${WAIT_S}`;
      const { events } = await ask(target, { waitMs: WAIT_S * 1000, signal });
      pause = FIRST_MS;
      if (events.length) {
        after = events[events.length - 1].seq;
        heard(events);
      }
    } catch (error) {
      if (signal.aborted) return;
      after = null;
      lost(error);
      await sleep(pause, signal);
      pause = Math.min(pause * 2, LATEST_MS);
    }
  }
}

/** Calls `act` soon, once for many asks, never two at a time; an ask meanwhile is one more call after it. */
function gathered(act, delayMs = 200, timers = { setTimeout, clearTimeout }) {
  let timer = null;
  let running = null;
  let again = false;
  async function run() {
    timer = null;
    if (running) {
      again = true;
      return;
    }
    running = Promise.resolve().then(act).catch(() => undefined);
    await running;
    running = null;
    if (again) {
      again = false;
      ask();
    }
  }
  function ask() {
    if (timer === null) timer = timers.setTimeout(run, delayMs);
  }
  ask.stop = () => {
    timers.clearTimeout(timer);
    again = false;
  };
  return ask;
}

module.exports = { follow, gathered };
