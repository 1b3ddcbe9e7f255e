import type { IncomingMessage } from 'node:http';

export function userOf({ headers }: IncomingMessage): string {
  return headers.authorization ?? '';
}
