// What all processes of a soak agree on: one monotonic clock, and when each of them stood still.

/** Milliseconds on the system's monotonic clock, which is the same in every process. */
export const now = () => Number(process.hrtime.bigint()) / 1e6;

const TICK_MS = 20;
const LATE_MS = 8;

/**
 * Notes every time this process's event loop stood still.
 * @returns a function that gives what was noted since it was last called: `[from, to]` each.
 */
export function watchLags() {
  let lags = [];
  let due = now() + TICK_MS;
  const tick = () => {
    const at = now();
    if (at - due > LATE_MS) lags.push([due, at]);
    due = at + TICK_MS;
    setTimeout(tick, TICK_MS).unref();
  };
  setTimeout(tick, TICK_MS).unref();
  return () => {
    const noted = lags;
    lags = [];
    // What has begun and is not over counts too.
    if (now() - due > LATE_MS) noted.push([due, now()]);
    return noted;
  };
}
