// Runs the server's side of programs, in a process of its own: many at a time, or one that may end the process.
import 'reflect-metadata';
import { writeSync } from 'node:fs';
import { createRequire } from 'node:module';
import type { AddressInfo } from 'node:net';
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises';
import { type DynamicModule, type INestApplication, Logger, Module, type Type } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { WsAdapter } from '@nestjs/platform-ws';
import type * as Package from '../../src/index.js';
import { generatedProgram } from './generated.js';
import type { FromHost, ToHost, Way } from './host-protocol.js';
import { type ServerSide, type ServerSocket, shown, type Trace } from './program.js';
import { programs } from './programs/index.js';

const way = process.argv[2] as Way;
/** Where a process that may end at any time writes its trace, at once; undefined: it is asked for it. */
const traceFile = process.argv[3] === undefined ? undefined : Number(process.argv[3]);
/** The module as the package has it. */
const { TWINS_PACKAGE = '' } = process.env;

const platformRequire = createRequire(createRequire(import.meta.url).resolve('@nestjs/platform-ws'));
const platformWs = platformRequire('ws') as typeof import('ws');
const known = new Map(programs.map((program) => [program.name, program]));

/** No event of a run for so long: nothing more will come of it. */
const QUIET_MS = 20;
/** As many turns, for what counts turns. */
const TURNS = 60;

class Run implements Trace {
  readonly server: string[] = [];
  readonly log: string[] = [];
  notedAt = performance.now();
  app: INestApplication | undefined;

  constructor(
    private readonly id: number,
    readonly isAlone: boolean,
  ) {}

  note(what: string, ...values: unknown[]): void {
    this.notedAt = performance.now();
    const line = [what, ...values.map(shown)].join(' ');
    this.server.push(line);
    if (traceFile !== undefined) writeSync(traceFile, `${JSON.stringify(['server', line])}\n`);
  }

  logged(line: string): void {
    this.log.push(line);
    if (traceFile !== undefined) writeSync(traceFile, `${JSON.stringify(['log', line])}\n`);
  }

  fault(name: string): Error {
    return new Error(`fault ${name} of run ${this.id}`);
  }

  callback(name: string): (error?: Error | null) => void {
    return (error) => (error ? this.note(`callback ${name}`, error) : this.note(`callback ${name}`));
  }

  watch(client: ServerSocket, ...events: string[]): void {
    for (const event of events)
      client.on(event, (...args: unknown[]) => this.note(`event ${event}`, ...args));
  }

  /** What has been sent meanwhile is read in these turns of the event loop, however long they take. */
  async quiet(ms: number): Promise<void> {
    const since = performance.now();
    let [lines, turns] = [this.server.length, 0];
    while (turns < TURNS || performance.now() - Math.max(since, this.notedAt) < ms) {
      await nextTurn();
      if (++turns % 20 === 0) await sleep(2);
      if (lines !== this.server.length) [lines, turns] = [this.server.length, 0];
    }
  }
}

/**
 * Notes which errors are logged. How the lines are worded, and at which level, is each twin's own. A fault names its
 * run; other lines are only known to be of a run where it has its process to itself.
 */
function noteError(message: unknown): void {
  const text = message instanceof Error ? message.message : String(message);
  const [fault, id] = /fault [\w-]+ of run (\d+)/.exec(text) ?? [];
  if (fault !== undefined) runs.get(Number(id))?.logged(shown(fault));
  else for (const run of runs.values()) if (run.isAlone) run.logged(shown(text));
}

Logger.overrideLogger({
  log() {},
  debug() {},
  verbose() {},
  warn() {},
  error: noteError,
  fatal: noteError,
});

let users = 0;

async function boot(run: Run, side: ServerSide): Promise<number> {
  const { gateways, providers = [], beforeBoot, configure, afterBoot, adapter } = side;
  await beforeBoot?.(platformWs);
  const imports = way === 'module' ? [await theModule()] : [];
  class App {}
  Module({ imports, providers: [...gateways, ...providers] as Type[] })(App);
  run.app = await NestFactory.create(App, { abortOnError: false });
  const own = adapter?.(run.app, WsAdapter) ?? (way === 'platform' ? new WsAdapter(run.app) : undefined);
  if (own) run.app.useWebSocketAdapter(own);
  await configure?.(run.app, own);
  await run.app.listen(0, '127.0.0.1');
  await afterBoot?.(platformWs);
  return (run.app.getHttpServer().address() as AddressInfo).port;
}

async function theModule(): Promise<DynamicModule> {
  const { WebSocketManagerModule } = (await import(TWINS_PACKAGE)) as typeof Package;
  return WebSocketManagerModule.forRoot({
    authenticate: () => ({ userId: `user-${++users}` }),
    canary: { intervalMs: 0 },
    drain: { spreadMs: 0, timeoutMs: 1_000 },
  });
}

const runs = new Map<number, Run>();

function tell(message: FromHost): void {
  process.send?.(message);
}

async function start({ id, name, script }: Extract<ToHost, { type: 'start' }>): Promise<void> {
  const program = script ? generatedProgram(script) : known.get(name);
  if (!program) throw new Error(`${name}: no such program`);
  const run = new Run(id, program.isAlone === true);
  runs.set(id, run);
  const port = await boot(run, program.server(run));
  tell({ type: 'started', id, port });
}

async function finish({ id }: Extract<ToHost, { type: 'finish' }>): Promise<void> {
  const run = runs.get(id) as Run;
  runs.delete(id);
  await run.quiet(QUIET_MS);
  tell({ type: 'finished', id, server: run.server, log: run.log });
  // Not waited for: the platform's own end waits for ever where a program has taken its listeners off.
  await run.app?.close();
}

async function quiet({ id, ms }: Extract<ToHost, { type: 'quiet' }>): Promise<void> {
  await runs.get(id)?.quiet(ms);
  tell({ type: 'quiet', id });
}

function answer(message: ToHost): Promise<void> {
  if (message.type === 'start') return start(message);
  return message.type === 'quiet' ? quiet(message) : finish(message);
}

process.on('message', (message: ToHost) => {
  answer(message).catch((error: Error) =>
    tell({ type: 'failed', id: message.id, error: String(error.stack) }),
  );
});
process.on('disconnect', () => process.exit());
tell({ type: 'ready' });
