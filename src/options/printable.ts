import { createHash } from 'node:crypto';
import type { LogUserIds } from './websocket-manager-options.interface.js';

/** A text that came from outside, as it may stand in a log line: one line, printable, of bounded length. */
export function printable(text: string, mostCharacters = 200): string {
  const cut = text.length > mostCharacters ? `${text.slice(0, mostCharacters)}...` : text;
  return cut.replace(
    UNPRINTABLE,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}

/** Everything but printable ASCII; of pairs, each half. */
const UNPRINTABLE = /[^\x20-\x7e]/g;

/** A user id as log lines show it: see {@link LogUserIds}. */
export function loggedUserId(userId: string, how: LogUserIds): string {
  if (how === 'full') return printable(userId, userId.length);
  if (how === 'hash') return createHash('sha256').update(userId).digest('hex').slice(0, HASH_LENGTH);
  return userId.length > SHORT_LENGTH ? `${printable(userId.slice(0, SHORT_LENGTH))}...` : printable(userId);
}

const HASH_LENGTH = 12;
const SHORT_LENGTH = 8;
