import type { IncomingMessage } from 'node:http';
import WebSocket, { type ClientOptions } from 'ws';

export interface Frame {
  readonly event: string;
  readonly data: unknown;
}

export interface Session {
  readonly managerId: string;
  readonly userId: string;
  readonly sessionKey: string | null;
  readonly joined: boolean;
}

export interface Refusal {
  readonly status: number;
  readonly headers: IncomingMessage['headers'];
  readonly body: {
    readonly statusCode: number;
    readonly error: string;
    readonly reason: string;
    readonly message: string;
    readonly retryAfterMs?: number;
  };
}

/** A client that knows nothing but the wire. */
export class Stranger {
  readonly frames: Frame[] = [];
  pings = 0;
  closed: { readonly code: number; readonly reason: string; readonly at: number } | undefined;

  constructor(readonly socket: WebSocket) {
    socket.on('message', (data) => this.frames.push(JSON.parse(String(data)) as Frame));
    socket.on('ping', () => this.pings++);
    socket.on('close', (code, reason) => {
      this.closed = { code, reason: String(reason), at: performance.now() };
    });
    socket.on('error', () => {});
  }

  get session(): Session {
    return this.of('session')[0] as Session;
  }

  /** What came with `event`, in order. */
  of(event: string): unknown[] {
    return this.frames.filter((frame) => frame.event === event).map(({ data }) => data);
  }

  send(event: string, data: unknown): void {
    this.socket.send(JSON.stringify({ event, data }));
  }

  /** Sends `text` to be echoed, and waits for it. */
  async echo(text: string, withinMs = 5_000): Promise<void> {
    this.send('echo', text);
    await until(() => this.of('echo').includes(text), withinMs, `the echo of ${text}`);
  }

  async whenClosed(withinMs = 5_000): Promise<{ code: number; reason: string }> {
    await until(() => this.closed !== undefined, withinMs, 'the socket to close');
    const { code, reason } = this.closed as { code: number; reason: string };
    return { code, reason };
  }
}

export interface KnockOptions extends ClientOptions {
  readonly protocols?: string | string[];
  /** Resolve as soon as the handshake is done, without waiting for the first frame. */
  readonly bare?: boolean;
  /** Answers every ping, the first included, which may come with the session frame, so long after it. */
  readonly answersPingsAfterMs?: number;
}

export interface Answer {
  /** Present when let in. */
  readonly client?: Stranger;
  /** Present when refused by HTTP. */
  readonly refusal?: Refusal;
  /** From the request to the answer; when let in, to the session frame. */
  readonly ms: number;
}

/** Asks to be let in, and tells what the answer was. */
export function knock(
  url: string,
  { protocols, bare, answersPingsAfterMs, ...options }: KnockOptions = {},
): Promise<Answer> {
  const startedAt = performance.now();
  const autoPong = answersPingsAfterMs === undefined;
  const socket = new WebSocket(url, protocols, { handshakeTimeout: 20_000, autoPong, ...options });
  if (!autoPong) socket.on('ping', () => setTimeout(() => socket.pong(), answersPingsAfterMs));
  const client = new Stranger(socket);
  return new Promise((resolve, reject) => {
    const letIn = () => resolve({ client, ms: performance.now() - startedAt });
    socket.once(bare ? 'open' : 'message', letIn);
    socket.once('close', letIn);
    socket.once('error', reject);
    socket.once('unexpected-response', (request, response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (chunk: string) => {
        text += chunk;
      });
      response.once('end', () => {
        request.destroy();
        const { statusCode = 0, headers } = response;
        const isJson = headers['content-type']?.includes('json') ?? false;
        const body = (isJson ? JSON.parse(text) : { message: text }) as Refusal['body'];
        resolve({ refusal: { status: statusCode, headers, body }, ms: performance.now() - startedAt });
      });
    });
  });
}

/** Asks to be let in, and expects to be. */
export async function enter(url: string, options?: KnockOptions): Promise<Stranger> {
  const { client, refusal } = await knock(url, options);
  if (!client || client.closed)
    throw new Error(`Not let in: ${JSON.stringify(refusal?.body ?? client?.closed)}`);
  return client;
}

/** Looks again and again until `condition` holds; not within `withinMs` is an error. */
export async function until(
  condition: () => boolean | Promise<boolean>,
  withinMs: number,
  what: string,
  everyMs = 5,
): Promise<void> {
  const endsAt = performance.now() + withinMs;
  while (!(await condition())) {
    if (performance.now() > endsAt) throw new Error(`Waited ${withinMs} ms in vain for ${what}`);
    await sleep(everyMs);
  }
}

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
