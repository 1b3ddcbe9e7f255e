import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { RawClient, request } from './raw-client.js';
import { built, type ServerSocket, type Side, type Sides, startSides } from './sides.js';
import { hex } from './wire.js';

/** What a client writes on an open connection, and what has to come of it. */
export interface FrameCase {
  /** The section that has the rule. */
  readonly rule: string;
  readonly title: string;
  /** Each is a TCP segment of its own. */
  readonly segments: readonly Buffer[];
  /**
   * The code of the server's close frame, 1005 for one without a code. `open`: the connection goes on. `ended`: it ends
   * without a close frame. `any`: only compared.
   */
  readonly outcome: number | 'open' | 'ended' | 'any';
  /** What the application has to receive: `text hello`, `binary 0102`. Not checked where absent. */
  readonly messages?: readonly string[];
  /** @default '/plain' */
  readonly path?: string;
  /** The client's offer of extensions. */
  readonly offer?: string;
  /** `fin`: the client ends the connection after it, instead of a last ping. @default 'ping' */
  readonly last?: 'ping' | 'fin';
}

/**
 * `observed`: the application listens to every event of the socket. `quiet`: to no ping and no pong, which lets the
 * module read its own pongs without `ws`.
 */
const MODES = ['observed', 'quiet'] as const;
type Mode = (typeof MODES)[number];

/** After its first ping of a connection the module reads the socket before `ws` does. */
const VARIANTS = ['platform', 'module', 'module after its first ping'] as const;
type Variant = (typeof VARIANTS)[number];

let lastId = 0;

/** One connection of one variant. */
class Session {
  private readonly events: string[] = [];
  private seen = 0;
  private isClosed = false;
  private closed!: Promise<void>;
  private bytesRead = () => 0;

  private constructor(private readonly client: RawClient) {}

  static async open(sides: Sides, variant: Variant, mode: Mode, { path = '/plain', offer }: FrameCase) {
    const side: Side = variant === 'platform' ? sides.platform : sides.module;
    const session = new Session(await RawClient.open(side.port, variant !== 'platform'));
    const id = `${++lastId}`;
    let socket: ServerSocket | undefined;
    side.expect(id, (arrived, upgrade) => {
      socket = arrived;
      session.bytesRead = () => upgrade.socket.bytesRead;
      session.listen(arrived, mode);
    });
    session.client.write(request(`${path}?id=${id}`, { 'Sec-WebSocket-Extensions': offer }));
    const head = await session.client.response();
    expect(head, `handshake with the ${variant}`).toMatch(/^HTTP\/1\.1 101 /);
    if (variant === 'module after its first ping') {
      built.connectionOf(socket)?.ping();
      await session.client.heartbeat();
      await session.client.settle();
    } else {
      await session.client.settle();
    }
    session.newLines();
    return session;
  }

  async run({ segments, last = 'ping' }: FrameCase): Promise<readonly string[]> {
    await this.client.segments(segments, this.bytesRead);
    if (last === 'fin') {
      this.client.socket.end();
      await this.client.end();
    } else {
      await this.client.settle();
    }
    if (this.client.ended) await this.closed;
    return this.newLines();
  }

  get isOpen(): boolean {
    return !this.client.ended && !this.isClosed;
  }

  destroy(): void {
    this.client.socket.destroy();
  }

  private listen(socket: ServerSocket, mode: Mode): void {
    const note = (line: string) => void this.events.push(line);
    this.closed = new Promise((resolve) => {
      socket.on('close', (code, reason) => {
        this.isClosed = true;
        note(`close ${code} ${hex(reason)}`);
        resolve();
      });
    });
    socket.on('message', (data, isBinary) => {
      note(`message ${shown(data as Buffer, isBinary)}`);
      // Without options: a text goes out as most applications send it.
      socket.send(isBinary ? (data as Buffer) : data.toString());
    });
    socket.on('error', (error) => {
      note(`error ${error.name} ${(error as NodeJS.ErrnoException).code}: ${error.message}`);
    });
    if (mode === 'quiet') return;
    socket.on('ping', (data) => note(`ping ${hex(data)}`));
    socket.on('pong', (data) => note(`pong ${hex(data)}`));
  }

  private newLines(): string[] {
    const events = this.events.slice(this.seen).map((event) => `application: ${event}`);
    this.seen = this.events.length;
    return [...events, ...this.client.newLines().map((line) => `wire: ${line}`)];
  }
}

/** A message as a case expects it. */
export function shown(data: Buffer, isBinary: boolean): string {
  return isBinary || data.length > 60 ? `${isBinary ? 'binary' : 'text'} ${hex(data)}` : `text ${data}`;
}

/** Connections of all variants that have had the same cases: reused until one of them ends. */
const lanes = new Map<string, Map<Variant, Session>>();

async function laneOf(sides: Sides, mode: Mode, frameCase: FrameCase): Promise<Map<Variant, Session>> {
  const key = `${mode} ${frameCase.path ?? '/plain'} ${frameCase.offer ?? ''}`;
  const lane = lanes.get(key);
  if (lane && [...lane.values()].every((session) => session.isOpen)) return lane;
  const fresh = new Map<Variant, Session>();
  lanes.set(key, fresh);
  const open = VARIANTS.map((variant) => Session.open(sides, variant, mode, frameCase));
  for (const [i, session] of (await Promise.all(open)).entries()) fresh.set(VARIANTS[i] as Variant, session);
  return fresh;
}

function discard(lane: Map<Variant, Session>): void {
  for (const session of lane.values()) session.destroy();
  for (const [key, other] of lanes) if (other === lane) lanes.delete(key);
}

/** Runs one case on all variants, and compares. */
export async function runFrameCase(sides: Sides, frameCase: FrameCase): Promise<void> {
  for (const mode of MODES) {
    const lane = await laneOf(sides, mode, frameCase);
    const transcripts = new Map<Variant, readonly string[]>();
    try {
      await Promise.all(
        [...lane].map(async ([variant, session]) => transcripts.set(variant, await session.run(frameCase))),
      );
      const platform = transcripts.get('platform') ?? [];
      expectOutcome(frameCase, platform);
      for (const variant of VARIANTS.slice(1)) {
        const ours = transcripts.get(variant) ?? [];
        expect(ours, failure(frameCase, mode, variant, platform, ours)).toEqual(platform);
      }
    } catch (error) {
      discard(lane);
      throw error;
    }
    // What a random case leaves behind, as half a message, is not for the next one.
    if (frameCase.outcome === 'any' || [...lane.values()].some((session) => !session.isOpen)) discard(lane);
  }
}

/** That the case tests what it says: on the platform, which is the measure, it has to come out as the rule has it. */
function expectOutcome(
  { rule, title, outcome, messages, last }: FrameCase,
  platform: readonly string[],
): void {
  const about = `${rule}: ${title}: on the platform\n${platform.join('\n')}`;
  const closeCode = platform.map((line) => /^wire: close (\d+)? ?fin/.exec(line)).find(Boolean);
  if (typeof outcome === 'number')
    expect(closeCode?.[1], about).toBe(outcome === 1005 ? undefined : `${outcome}`);
  if (outcome === 1005) expect(closeCode, about).toBeTruthy();
  if (outcome === 'open' || outcome === 'ended') expect(closeCode, about).toBeUndefined();
  if (outcome === 'open' && last !== 'fin')
    expect(platform, about).not.toContain('wire: end of the connection');
  if (outcome !== 'open' && outcome !== 'any')
    expect(platform, about).toContain('wire: end of the connection');
  if (!messages) return;
  const received = platform
    .filter((line) => line.startsWith('application: message '))
    .map((line) => line.slice('application: message '.length));
  expect(received, about).toEqual(messages);
}

function failure(
  { rule, title, segments }: FrameCase,
  mode: Mode,
  variant: Variant,
  platform: readonly string[],
  ours: readonly string[],
): string {
  return [
    `${rule}: ${title} (${mode} socket): the ${variant} differs from the platform`,
    `sent: ${segments.slice(0, 40).map(hex).join(' | ')}`,
    `platform:\n  ${platform.join('\n  ')}`,
    `${variant}:\n  ${ours.join('\n  ')}`,
  ].join('\n');
}

/** Starts the sides for the tests of a file. */
export function useSides(): () => Sides {
  let sides: Sides | undefined;
  beforeAll(async () => {
    sides = await startSides();
  });
  afterAll(async () => {
    for (const lane of [...lanes.values()]) discard(lane);
    await sides?.module.stop();
    await sides?.platform.stop();
  });
  return () => sides as Sides;
}

/** Makes one test of each case. */
export function testFrameCases(title: string, sides: () => Sides, cases: readonly FrameCase[]): void {
  describe(title, () => {
    for (const frameCase of cases) {
      it(`${frameCase.rule}: ${frameCase.title}`, () => runFrameCase(sides(), frameCase));
    }
  });
}
