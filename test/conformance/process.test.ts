import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { describe, expect, it, onTestFinished } from 'vitest';
import { expectSame, registerCase, testTable } from './support/expected-differences.js';
import { RawClient, request } from './support/raw-client.js';
import { frame, TEXT } from './support/wire.js';

const HOST = fileURLToPath(new URL('support/host.mjs', import.meta.url));
const SIDES = ['platform', 'module'] as const;
type SideName = (typeof SIDES)[number];

interface Host {
  readonly child: ChildProcess;
  readonly port: number;
  readonly exited: Promise<[number | null, NodeJS.Signals | null]>;
  errors(): string;
}

async function start(side: SideName, ending: string): Promise<Host> {
  const child = fork(HOST, [side, ending], { stdio: ['ignore', 'ignore', 'pipe', 'ipc'] });
  onTestFinished(() => void child.kill('SIGKILL'));
  let errors = '';
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    errors += text;
  });
  const exited = once(child, 'exit') as Host['exited'];
  const port = await Promise.race([
    once(child, 'message').then(([value]) => value as number),
    exited.then(() => 0),
  ]);
  expect(port, `the host has not started\n${errors}`).toBeGreaterThan(0);
  return { child, port, exited, errors: () => errors };
}

async function connect({ port }: Host, side: SideName, action: string): Promise<RawClient> {
  const client = await RawClient.open(port, side === 'module');
  onTestFinished(() => void client.socket.destroy());
  client.write(request(`/host?action=${encodeURIComponent(action)}`));
  await client.response();
  return client;
}

function linesOf(client: RawClient): string[] {
  return client.newLines().map((line) => `wire: ${line}`);
}

/** How the process ends; where it goes on, it has had this long to end. */
async function endOf({ exited, errors }: Host, goesOnAfterMs: number): Promise<string[]> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<undefined>((resolve) => {
    timer = setTimeout(resolve, goesOnAfterMs, undefined);
  });
  const end = await Promise.race([exited, late]).finally(() => clearTimeout(timer));
  const error = /Error: (crash|failure)/.exec(errors());
  return [end ? `process: ended, ${end[0] ?? end[1]}` : 'process: goes on', ...(error ? [error[0]] : [])];
}

/** Of host.mjs. */
const ACTIONS = [
  'text',
  'text with a callback',
  'texts and a buffer',
  'text of 20 kB',
  'text, then close',
  'text, then terminate',
  'text in a listener of exit',
  'answers of Nest',
  // The last one: it takes its time.
  'progress before work',
] as const;

const LAST_MESSAGES = Buffer.concat(
  [...[1, 2, 3].map((data) => ({ event: 'echo', data })), { event: 'end' }].map((message) =>
    frame(TEXT, JSON.stringify(message)),
  ),
);

/** What each client gets of the last that the process sends. */
async function lastWords(side: SideName, ending: string): Promise<Map<string, string[]>> {
  const host = await start(side, ending);
  const clients = new Map<string, RawClient>();
  for (const action of ACTIONS) clients.set(action, await connect(host, side, action));
  const progress = clients.get('progress before work') as RawClient;
  const arrivals: number[] = [];
  progress.socket.on('data', () => {
    while (arrivals.length < progress.frames.length) arrivals.push(performance.now());
  });
  clients.get('answers of Nest')?.write(LAST_MESSAGES);
  const transcripts = new Map<string, string[]>();
  for (const [action, client] of clients) {
    await client.end();
    transcripts.set(action, linesOf(client));
  }
  const [begins = 0, done = 0] = arrivals;
  transcripts.get('progress before work')?.push(`apart: ${done - begins > 150}`);
  transcripts.set('the process', await endOf(host, 2_000));
  return transcripts;
}

describe('what is sent before the process ends', () => {
  for (const ending of ['exit', 'SIGKILL', 'crash']) {
    describe(`by ${ending}`, () => {
      let both: Promise<Map<string, string[]>[]> | undefined;
      for (const action of [...ACTIONS, 'the process']) {
        it(`Node process: ${action}, then ${ending}`, async () => {
          both ??= Promise.all(SIDES.map((side) => lastWords(side, ending)));
          const [platform, module] = await both;
          const name = `${action}, then ${ending}`;
          expectSame(name, `Node process: ${name}`, platform?.get(action) ?? [], module?.get(action) ?? []);
          expect(platform?.get(action)).not.toEqual([]);
        });
      }
    });
  }
});

/** A failure of the application, on one connection. */
async function failure(side: SideName, name: string): Promise<string[]> {
  const host = await start(side, 'none');
  const client = await connect(host, side, name);
  client.write(frame(TEXT, 'x'));
  await client.end();
  return [...linesOf(client), ...(await endOf(host, 300))];
}

describe('failures of the application', () => {
  for (const name of [
    'callback of send that throws',
    'listener of message that throws',
    'handleConnection that rejects',
  ]) {
    registerCase(name);
    it(`Node uncaughtException: ${name}`, async () => {
      const [platform, module] = await Promise.all(SIDES.map((side) => failure(side, name)));
      expectSame(name, `Node uncaughtException: ${name}`, platform ?? [], module ?? []);
    });
  }
});

testTable('process');
