import crypto from 'node:crypto';
import { syncBuiltinESMExports } from 'node:module';

/** Ids that are the same when a history is lived through again; in no order, as random ones are. */
let idsMade = 0;
/** What else is drawn: the order in which a drain closes, and when each client may come back. */
let drawn = 0;

/** From the first one again. */
export function restartIds(): void {
  idsMade = 0;
  drawn = 0;
}

/** @returns what makes them random again. */
export function makeIdsRepeatable(): () => void {
  const { randomUUID } = crypto;
  const { random } = Math;
  crypto.randomUUID = () => {
    const scattered = Math.imul(++idsMade, 0x9e3779b1) >>> 0;
    return `${scattered.toString(16).padStart(8, '0')}-0000-4000-8000-000000000000`;
  };
  Math.random = () => {
    drawn = (Math.imul(drawn, 1_664_525) + 1_013_904_223) >>> 0;
    return drawn / 2 ** 32;
  };
  syncBuiltinESMExports();
  return () => {
    crypto.randomUUID = randomUUID;
    Math.random = random;
    syncBuiltinESMExports();
  };
}
