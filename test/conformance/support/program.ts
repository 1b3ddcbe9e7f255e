import type { IncomingMessage } from 'node:http';
import { inspect } from 'node:util';
import { describe, expect, it } from 'vitest';
import { expectSame, registerCase } from './expected-differences.js';
import { RawClient, request, turn } from './raw-client.js';
import type { ServerSocket, Side, Sides } from './sides.js';
import { hex } from './wire.js';

export interface ProgramContext {
  /** The socket of the connection, as the gateway has it. */
  readonly socket: ServerSocket;
  readonly request: IncomingMessage;
  /** Its other end. */
  readonly client: RawClient;
  readonly side: Side;
  /** Writes a line of the transcript. */
  note(...values: unknown[]): void;
  /** Notes what the call returns or throws. */
  attempt(title: string, call: () => unknown): void;
  /** Resolves when the condition holds; rejects after two seconds. */
  until(condition: () => boolean): Promise<void>;
}

/** A small application on one socket. */
export interface Program {
  /** The part of the documentation of `ws`, of Nest or of Node that has the rule. */
  readonly rule: string;
  readonly title: string;
  /** @default '/plain' */
  readonly path?: string;
  readonly offer?: string;
  readonly protocols?: string;
  /** Bytes that the client writes together with its request. */
  readonly early?: Buffer;
  /** Whether `handleConnection` returns the promise of `run`. @default false */
  readonly isAwaited?: boolean;
  /** Whether the end of the connection is left to the program. @default false */
  readonly endsItself?: boolean;
  /** Whether the arguments of `handleDisconnect` are compared. @default false */
  readonly showsDisconnect?: boolean;
  /** Begins within `handleConnection`. */
  run(context: ProgramContext): void | Promise<void>;
}

const WAIT_MS = 2_000;
const CLOSED = 3;
let lastId = 0;

async function transcript(side: Side, program: Program): Promise<string[]> {
  const id = `p${++lastId}`;
  const lines: string[] = [];
  const note = (...values: unknown[]) => void lines.push(values.map(shown).join(' '));
  const client = await RawClient.open(
    side.port,
    // A program is over long before the first ping of the heartbeat: any ping is its own.
    false,
  );
  let socket: ServerSocket | undefined;
  let done: Promise<void> | undefined;
  side.expect(id, (arrived, upgrade) => {
    socket = arrived;
    const context: ProgramContext = {
      socket: arrived,
      request: upgrade,
      client,
      side,
      note,
      attempt: (title, call) => {
        try {
          note(title, 'returns', call());
        } catch (error) {
          note(title, 'throws', error);
        }
      },
      until,
    };
    const start = async () => program.run(context);
    done = start();
    return program.isAwaited ? done : undefined;
  });
  side.onDisconnect(id, (...args) => note('handleDisconnect', ...(program.showsDisconnect ? [args] : [])));
  try {
    client.write(
      Buffer.concat([
        Buffer.from(
          request(`${program.path ?? '/plain'}?id=${id}`, {
            'Sec-WebSocket-Extensions': program.offer,
            'Sec-WebSocket-Protocol': program.protocols,
          }),
        ),
        program.early ?? Buffer.alloc(0),
      ]),
    );
    await client.response();
    await until(() => done !== undefined);
    await done;
    if (!program.endsItself) {
      if (socket?.readyState === 1 && !socket.isPaused) await client.settle();
      client.socket.end();
    }
    await until(() => socket?.readyState === CLOSED);
    for (let i = 0; i < 4; i++) await turn();
    return counted([...lines, ...client.newLines().map((line) => `wire: ${line}`)]);
  } finally {
    client.socket.destroy();
  }
}

async function until(condition: () => boolean): Promise<void> {
  const deadline = performance.now() + WAIT_MS;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`not within ${WAIT_MS} ms: ${condition}`);
    await turn();
  }
}

/** Equal lines in a row as one. */
function counted(lines: readonly string[]): string[] {
  const result: [string, number][] = [];
  for (const line of lines) {
    const last = result.at(-1);
    if (last?.[0] === line) last[1]++;
    else result.push([line, 1]);
  }
  return result.map(([line, count]) => (count === 1 ? line : `${line} (${count} times)`));
}

/** A value as one line, the same on both sides wherever the value is. */
function shown(value: unknown): string {
  if (typeof value === 'string') return value;
  if (Buffer.isBuffer(value)) return `<${hex(value)}>`;
  if (value instanceof Error) {
    return `${value.name} ${(value as NodeJS.ErrnoException).code ?? 'no code'}: ${value.message}`;
  }
  return inspect(value, { depth: 2, compact: true, breakLength: Number.POSITIVE_INFINITY });
}

/** Runs one program under the platform and under the module, and compares. */
export async function runProgram({ platform, module }: Sides, program: Program): Promise<void> {
  const theirs = await transcript(platform, program);
  let ours: string[];
  try {
    ours = await transcript(module, program);
  } catch (error) {
    // On the platform it came to its end.
    ours = [`did not come to its end: ${shown(error)}`];
  }
  expect(theirs.length, `${program.title}: the program notes nothing`).toBeGreaterThan(0);
  expectSame(program.title, `${program.rule}: ${program.title}\n${program.run}`, theirs, ours);
}

/** Makes one test of each program. */
export function testPrograms(title: string, sides: () => Sides, programs: readonly Program[]): void {
  describe(title, () => {
    for (const program of programs) {
      registerCase(program.title);
      it(`${program.rule}: ${program.title}`, () => runProgram(sides(), program));
    }
  });
}
