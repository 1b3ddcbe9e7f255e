import type { Link, LinkShape } from './relay.js';

const KIB = 1_024;
const MIB = KIB * KIB;

function shape(bytesPerSecond: number, delayMs: number, rest: Partial<LinkShape> = {}): LinkShape {
  return { bytesPerSecond, delayMs, queueBytes: 32 * KIB, ...rest };
}

/** 30 KiB/s, 800 ms round trip. */
export const TWO_G: Link = { down: shape(30 * KIB, 400), up: shape(30 * KIB, 400) };

export const SATELLITE: Link = {
  down: shape(MIB, 300, { jitterMs: 60, queueBytes: 256 * KIB }),
  up: shape(256 * KIB, 300, { jitterMs: 60 }),
};

/** Nothing passes for 25 s, again and again, with some seconds between. */
export function tunnel(offsetMs: number): Link {
  const stalls = [{ direction: 'both', everyMs: 32_000, forMs: 25_000, offsetMs }] as const;
  return { down: shape(256 * KIB, 40), up: shape(256 * KIB, 40), stalls };
}

/** A client that reads so many bytes a second; what the server sends beyond fills the kernel's buffers. */
export function readerOf(bytesPerSecond: number): Link {
  return { down: shape(bytesPerSecond, 10), up: shape(MIB, 10) };
}

export const DOWNLOADER = readerOf(200 * KIB);
/** The slowest reader of which SPEC section 4 promises that it is never proven dead. */
export const TRICKLE = readerOf(16 * KIB);

export const FAST: Link = { down: shape(MIB, 30, { jitterMs: 20 }), up: shape(MIB, 30, { jitterMs: 20 }) };

/** On a phone it is the answers that take long, not the link. */
export const PHONE: Link = FAST;

/** The client hears nothing for a minute, and is heard all the time. */
export function lossDown(offsetMs: number): Link {
  const stalls = [{ direction: 'down', everyMs: 90_000, forMs: 60_000, offsetMs }] as const;
  return { ...PHONE, stalls };
}

/** The client hears everything, and is not heard for 24 s, again and again. */
export function stallUp(offsetMs: number): Link {
  const stalls = [{ direction: 'up', everyMs: 34_000, forMs: 24_000, offsetMs }] as const;
  return { ...PHONE, stalls };
}
