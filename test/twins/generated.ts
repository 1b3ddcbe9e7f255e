import { setImmediate as nextTurn } from 'node:timers/promises';
import { WsException } from '@nestjs/websockets';
import { concat, concatMap, from, of, throwError } from 'rxjs';
import type { SeededRandom } from '../support/seeded-random.js';
import { closeFrame, message } from './frames.js';
import { type GatewayParts, type Program, program, type ServerSocket, type Trace } from './program.js';

/** Ways to get to a later turn. */
const LATER = ['tick', 'microtask', 'promise', 'immediate', 'turns'] as const;
const KINDS = ['text', 'binary', 'bytes', 'text as binary', 'number', 'empty', 'part', 'last part'] as const;
const EVENTS = ['message', 'close', 'ping', 'pong', 'error'] as const;
/** Without a rejection: that an answer may overtake one is a difference of its own. */
const ANSWERS = [
  'value',
  'value',
  'value',
  'promise',
  'late promise',
  'nothing',
  'values',
  'late values',
  'values, then an exception',
  'exception',
  'error',
] as const;

/** One thing that an application does with its socket. */
export type Step =
  | {
      readonly do: 'send';
      readonly kind: (typeof KINDS)[number];
      readonly size: number;
      readonly told: boolean;
    }
  | { readonly do: 'ping' | 'pong'; readonly told: boolean }
  | { readonly do: 'close'; readonly code?: number | undefined }
  | { readonly do: 'terminate' | 'pause' | 'resume' | 'buffered' }
  | {
      readonly do: 'listen';
      readonly event: (typeof EVENTS)[number];
      readonly how: 'on' | 'once' | 'prependListener';
    }
  | { readonly do: 'removeAll'; readonly event: 'ping' | 'pong' | 'error' }
  | { readonly do: 'later'; readonly when: (typeof LATER)[number]; readonly steps: readonly Step[] };

export type ClientStep =
  /** The handlers of these numbers, in one write. */
  | { readonly do: 'call'; readonly handlers: readonly number[] }
  | { readonly do: 'close'; readonly code: number }
  | { readonly do: 'end' | 'reset' };

/** A generated program, as data: it can be pasted where one is to be run again. */
export interface Script {
  readonly connection: readonly Step[];
  readonly disconnect: readonly Step[];
  readonly handlers: readonly {
    readonly steps: readonly Step[];
    readonly answer: (typeof ANSWERS)[number];
  }[];
  readonly client: readonly ClientStep[];
}

/** Without an event for so long, what a step of the client has set off is over. */
const STEP_MS = 10;
/** Later than what goes by immediates and callbacks; a timer would be, or not, as busy as the machine is. */
const LATER_TURNS = 12;

/** Composes a program. */
export function generate(random: SeededRandom): Script {
  const handlers = Array.from({ length: 1 + random.below(3) }, () => ({
    steps: stepsOf(random, 4),
    answer: random.pick(ANSWERS),
  }));
  const calls = Array.from(
    { length: 1 + random.below(4) },
    (): ClientStep => ({
      do: 'call',
      handlers: Array.from({ length: 1 + random.below(4) }, () => random.below(handlers.length)),
    }),
  );
  const end = random.pick<ClientStep>([
    { do: 'close', code: 1000 },
    { do: 'close', code: 4321 },
    { do: 'end' },
    { do: 'reset' },
  ]);
  return {
    connection: stepsOf(random, 3),
    disconnect: random.chance(0.5) ? stepsOf(random, 2) : [],
    handlers,
    client: [...calls, end],
  };
}

function stepsOf(random: SeededRandom, most: number, depth = 0): Step[] {
  return Array.from({ length: random.below(most + 1) }, () => stepOf(random, depth));
}

function stepOf(random: SeededRandom, depth: number): Step {
  const told = random.chance(0.4);
  const choice = random.next();
  if (choice < 0.45) {
    const size = random.pick([0, 1, 20, 125, 126, 1_000, 65_535, 70_000]);
    return { do: 'send', kind: random.pick(KINDS), size, told };
  }
  if (choice < 0.7 && depth < 3) {
    return { do: 'later', when: random.pick(LATER), steps: stepsOf(random, 3, depth + 1) };
  }
  if (choice < 0.78) return { do: random.pick(['ping', 'pong'] as const), told };
  if (choice < 0.84) {
    const how = random.pick(['on', 'once', 'prependListener'] as const);
    return { do: 'listen', event: random.pick(EVENTS), how };
  }
  if (choice < 0.86) return { do: 'removeAll', event: random.pick(['ping', 'pong', 'error'] as const) };
  if (choice < 0.9) return { do: 'buffered' };
  if (choice < 0.94) return { do: random.pick(['pause', 'resume', 'resume'] as const) };
  if (choice < 0.98) return { do: 'close', code: random.pick([undefined, 1000, 3000, 4999]) };
  return { do: 'terminate' };
}

/** Scripts with one thing less, smaller ones first. */
export function* smaller(script: Script): Generator<Script> {
  const { connection, disconnect, handlers, client } = script;
  for (let i = 0; i < client.length; i++) yield { ...script, client: without(client, i) };
  for (const steps of smallerSteps(connection)) yield { ...script, connection: steps };
  for (const steps of smallerSteps(disconnect)) yield { ...script, disconnect: steps };
  for (const [i, handler] of handlers.entries()) {
    const withHandler = (changed: (typeof handlers)[number]) => ({
      ...script,
      handlers: handlers.map((other, j) => (j === i ? changed : other)),
    });
    for (const steps of smallerSteps(handler.steps)) yield withHandler({ ...handler, steps });
    if (handler.answer !== 'nothing') yield withHandler({ ...handler, answer: 'nothing' });
  }
  for (const [i, step] of client.entries()) {
    if (step.do !== 'call') continue;
    for (let j = 0; step.handlers.length > 1 && j < step.handlers.length; j++) {
      const fewer = { ...step, handlers: without(step.handlers, j) };
      yield { ...script, client: client.map((other, k) => (k === i ? fewer : other)) };
    }
  }
}

function* smallerSteps(steps: readonly Step[]): Generator<Step[]> {
  for (const [i, step] of steps.entries()) {
    yield without(steps, i);
    if (step.do !== 'later') continue;
    yield [...steps.slice(0, i), ...step.steps, ...steps.slice(i + 1)];
    for (const inner of smallerSteps(step.steps)) {
      yield steps.map((other, j) => (j === i ? { ...step, steps: inner } : other));
    }
  }
}

function without<T>(list: readonly T[], index: number): T[] {
  return list.filter((_, i) => i !== index);
}

/** What makes a script a program. */
export function generatedProgram(script: Script, name = 'generated'): Program & { readonly script: Script } {
  const parts: GatewayParts = {
    connection: (client, trace) => new Performer(client, trace, 'connection').all(script.connection),
    disconnect: (client, trace) => new Performer(client, trace, 'disconnect').all(script.disconnect),
    on: Object.fromEntries(
      script.handlers.map(({ steps, answer }, i) => [
        `h${i}`,
        (client: ServerSocket, nth: number, trace: Trace) => {
          new Performer(client, trace, `${nth}`).all(steps);
          return answerOf(answer, nth, trace);
        },
      ]),
    ),
  };
  const made = program(name, parts, async (clients) => {
    const client = await clients.connectRaw();
    let calls = 0;
    for (const step of script.client) {
      await clients.quiet(STEP_MS);
      if (step.do === 'call')
        client.write(...step.handlers.map((handler) => message(`h${handler}`, ++calls)));
      else if (step.do === 'close') client.write(closeFrame(step.code));
      else if (step.do === 'end') client.socket.end();
      else client.socket.resetAndDestroy();
    }
    await clients.quiet(STEP_MS);
  });
  return { ...made, script };
}

function answerOf(answer: (typeof ANSWERS)[number], nth: number, trace: Trace): unknown {
  const event = (data: unknown) => ({ event: 'answer', data: `${nth}: ${data}` });
  switch (answer) {
    case 'value':
      return event('value');
    case 'promise':
      return Promise.resolve(event('promise'));
    case 'late promise':
      return turns().then(() => event('late promise'));
    case 'nothing':
      return undefined;
    case 'values':
      return from([event('first'), event('second'), event('third')]);
    case 'late values':
      return of(0, 1, 2).pipe(concatMap((count) => turns().then(() => event(count))));
    case 'values, then an exception':
      return concat(
        of(event('before')),
        throwError(() => new WsException(`${nth}: in a stream`)),
      );
    case 'exception':
      throw new WsException(`${nth}: thrown`);
    case 'error':
      throw trace.fault(`error-${nth}`);
  }
}

/** Does the steps, and names what they send by where they are. */
class Performer {
  private done = 0;

  constructor(
    private readonly client: ServerSocket,
    private readonly trace: Trace,
    private readonly label: string,
  ) {}

  all(steps: readonly Step[]): void {
    for (const step of steps) this.one(step, `${this.label}.${++this.done}`);
  }

  private one(step: Step, name: string): void {
    const { client, trace } = this;
    switch (step.do) {
      case 'send':
        this.send(step, name);
        break;
      case 'ping':
      case 'pong':
        client[step.do](name, undefined, step.told ? trace.callback(name) : undefined);
        break;
      case 'close':
        client.close(step.code, step.code === undefined ? undefined : name);
        break;
      case 'terminate':
      case 'pause':
      case 'resume':
        client[step.do]();
        break;
      case 'buffered':
        trace.note(`${name} buffered`, client.bufferedAmount > 0, client.readyState, client.isPaused);
        break;
      case 'listen':
        client[step.how as 'on'](step.event, (...args: unknown[]) =>
          trace.note(`${name} ${step.event}`, ...args),
        );
        break;
      case 'removeAll':
        client.removeAllListeners(step.event);
        break;
      case 'later':
        later(step.when, () => {
          trace.note(`${name} ${step.when}`);
          this.all(step.steps);
        });
    }
  }

  private send({ kind, size, told }: Extract<Step, { do: 'send' }>, name: string): void {
    const { client, trace } = this;
    const text = `${name} ${'x'.repeat(size)}`;
    const callback = told ? [trace.callback(name)] : [];
    const send = client.send.bind(client) as (...args: unknown[]) => void;
    if (kind === 'text') send(text, ...callback);
    else if (kind === 'binary') send(Buffer.from(text), ...callback);
    else if (kind === 'bytes') send(new Uint8Array(Buffer.from(text)), ...callback);
    else if (kind === 'text as binary') send(text, { binary: true }, ...callback);
    else if (kind === 'number') send(size, ...callback);
    else if (kind === 'empty') send('', ...callback);
    else send(text, { fin: kind === 'last part' }, ...callback);
  }
}

export function later(when: (typeof LATER)[number], work: () => void): void {
  if (when === 'tick') process.nextTick(work);
  else if (when === 'microtask') queueMicrotask(work);
  else if (when === 'promise') void Promise.resolve().then(() => Promise.resolve().then(work));
  else if (when === 'immediate') setImmediate(work);
  else void turns().then(work);
}

async function turns(): Promise<void> {
  for (let turn = 0; turn < LATER_TURNS; turn++) await nextTurn();
}
