import { setTimeout as sleep } from 'node:timers/promises';
import { expect, onTestFinished } from 'vitest';
import { type RawData, WebSocket } from 'ws';
import type { Applications, Drive } from './drives.js';

const event = (name: string, data?: unknown) => JSON.stringify({ event: name, data });

const ANSWERS = [
  ...[
    'object',
    'string',
    'number',
    'false',
    'nothing',
    'null',
    'observable',
    'later',
    'state',
    'ack',
    'twice',
  ],
  ...['promised observable', 'observable of promises', 'sends by itself'],
].map((name) => ['/answers', event(name, { some: ['data', 1] })] as const);

/** What is no message of anybody's. */
const NOTHING = [
  'no json {',
  '',
  '5',
  'null',
  '"object"',
  '["object"]',
  '{}',
  '{"event":5}',
  '{"event":"nobody"}',
  '{"event":"constructor"}',
  '{"event":"__proto__","data":{"__proto__":{"polluted":1}}}',
].map((text) => ['/answers', text] as const);

const FAILURES = [
  event('ws exception', 'data'),
  event('ws exception object'),
  event('ws exception, base filter'),
  event('error'),
  event('rejection'),
  event('filtered'),
  event('observable error'),
  event('guarded', 'no'),
  event('guarded', 'yes'),
  event('guarded later'),
  event('piped', 'x'),
  event('piped', 21),
  event('piped parameter', { n: 4 }),
  event('intercepted', 'x'),
  event('intercepted stream'),
  event('swallowed'),
].map((text) => ['/failures', text] as const);

const CASES: readonly (readonly [path: string, message: string | Buffer])[] = [
  ...ANSWERS,
  ...NOTHING,
  ...FAILURES,
  ['/answers', event('promise', { field: 'value', other: 1 })],
  ['/answers', Buffer.from(event('object', 'ü'))],
  ['/both', event('object', { n: 1 })],
];

/** Nothing of ours takes so long; a handler that answers later is not among them. */
const QUIET_MS = 500;
const LAST = event('object', { n: 'last' });

/** What came back for each message. */
type Answers = Record<string, string[]>;

/** Each case on a connection of its own, followed by a message that is always answered. */
async function converse(url: string): Promise<Answers> {
  const conversations = CASES.map(async ([path, message]) => {
    const client = new WebSocket(`${url}${path}?userId=alice`);
    onTestFinished(() => client.terminate());
    const received: string[] = [];
    let lastAt = performance.now();
    client.on('message', (data: RawData, isBinary: boolean) => {
      received.push(`${isBinary ? 'binary ' : ''}${String(data)}`);
      lastAt = performance.now();
    });
    await new Promise((resolve, reject) => client.once('open', resolve).once('error', reject));
    client.send(message);
    client.send(LAST);
    while (performance.now() - lastAt < QUIET_MS || received.length === 0) await sleep(10);
    // A promise may take its turn before or after the message behind it.
    return [`${path} ${String(message)}`, received.toSorted()] as const;
  });
  return Object.fromEntries(await Promise.all(conversations));
}

/** What handlers, guards and pipes that throw make every client hear, on both majors. */
const EXCEPTIONS = [
  { status: 'error', message: 'plain', cause: { pattern: 'ws exception', data: 'data' } },
  { code: 7, why: 'because' },
  { status: 'error', message: 'by the base filter' },
  { status: 'error', message: 'Internal server error', cause: { pattern: 'error' } },
  { status: 'error', message: 'later', cause: { pattern: 'rejection' } },
  { status: 'error', message: 'in the stream', cause: { pattern: 'observable error' } },
  { status: 'error', message: 'Forbidden resource', cause: { pattern: 'guarded', data: 'no' } },
  { status: 'error', message: 'Forbidden resource', cause: { pattern: 'guarded later' } },
  { status: 'error', message: 'not a number: x', cause: { pattern: 'piped', data: 'x' } },
].map((data) => JSON.stringify({ event: 'exception', data }));

const isException = (frame: string) => frame.startsWith('{"event":"exception"');

function withoutExceptions(answers: Answers): Answers {
  return Object.fromEntries(
    Object.entries(answers).map(([message, frames]) => [
      message,
      frames.filter((frame) => !isException(frame)),
    ]),
  );
}

/**
 * The platform alone says how a message is to be answered; ours, and its own way behind our door, have to say the same.
 * But for one thing: on Nest 11 the platform's filters emit to a `ws` client what they should send.
 */
async function messages(applications: Applications): Promise<void> {
  const comparable = (answers: Answers) => (applications.major === 11 ? withoutExceptions(answers) : answers);
  for (const GLOBALS of ['off', 'on']) {
    const answers = ['platform', 'ours', 'stock'].map(async (WAY) => {
      const server = await applications.start('messages.js', { WAY, GLOBALS });
      return converse(server.url.replace('http', 'ws'));
    });
    const [platform, ours, stock] = (await Promise.all(answers)) as [Answers, Answers, Answers];
    expect(Object.keys(platform)).toHaveLength(CASES.length);
    expect(comparable(ours)).toEqual(platform);
    expect(stock).toEqual(ours);
    if (GLOBALS === 'off') {
      expect(Object.values(ours).flat().filter(isException).toSorted()).toEqual(EXCEPTIONS.toSorted());
    }
  }
}

export const MESSAGES: Drive = ['every kind of message and of failure, as on the platform', messages];
