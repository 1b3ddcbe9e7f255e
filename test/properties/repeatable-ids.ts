import crypto from 'node:crypto';
import { syncBuiltinESMExports } from 'node:module';

/** Ids that are the same when a history is lived through again; in no order, as random ones are. */
let idsMade = 0;
const ID_BYTES = 16;
/** What else is drawn: the order in which a drain closes, and when each client may come back. */
let drawn = 0;

/** From the first one again. */
export function restartIds(): void {
  idsMade = 0;
  drawn = 0;
}

/** @returns what makes them random again. */
export function makeIdsRepeatable(): () => void {
  const { randomFillSync } = crypto;
  const { random } = Math;
  crypto.randomFillSync = (<T extends NodeJS.ArrayBufferView>(room: T): T => {
    const bytes = Buffer.from(room.buffer, room.byteOffset, room.byteLength).fill(0);
    for (let at = 0; at < bytes.length; at += ID_BYTES)
      bytes.writeUInt32BE(Math.imul(++idsMade, 0x9e3779b1) >>> 0, at);
    return room;
  }) as typeof randomFillSync;
  Math.random = () => {
    drawn = (Math.imul(drawn, 1_664_525) + 1_013_904_223) >>> 0;
    return drawn / 2 ** 32;
  };
  syncBuiltinESMExports();
  return () => {
    crypto.randomFillSync = randomFillSync;
    Math.random = random;
    syncBuiltinESMExports();
  };
}
