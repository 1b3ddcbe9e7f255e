import type { IncomingHttpHeaders, IncomingMessage } from 'node:http';
import { onTestFinished } from 'vitest';
import { type ClientOptions, WebSocket } from 'ws';
import { BoundedWait } from './bounded-wait.js';

export interface Frame {
  readonly event: string;
  readonly data?: unknown;
}

export interface Closed {
  readonly code: number;
  readonly reason: string;
}

/** How a server says no before the handshake. */
export interface HttpRefusal {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  /** Parsed, where it is JSON. */
  readonly body: unknown;
}

const WAIT_MS = 3_000;

/** An open connection, its frames in a queue. Every wait has an end. */
export class Client {
  /** Every frame so far, also those that were taken with {@link next}. */
  readonly received: Frame[] = [];
  private taken = 0;
  private closing: Closed | undefined;
  private readonly wait = new BoundedWait();

  constructor(readonly webSocket: WebSocket) {
    webSocket.on('message', (data) => {
      this.received.push(JSON.parse(String(data)) as Frame);
      this.wait.wake();
    });
    webSocket.on('close', (code, reason) => {
      this.closing = { code, reason: String(reason) };
      this.wait.wake();
    });
    webSocket.on('error', () => {});
  }

  get isOpen(): boolean {
    return this.webSocket.readyState === WebSocket.OPEN;
  }

  send(event: string, data?: unknown): void {
    this.webSocket.send(JSON.stringify({ event, data }));
  }

  /** The next frame that nobody has taken. */
  async next(waitMs = WAIT_MS): Promise<Frame> {
    await this.wait.until(
      () => this.received.length > this.taken,
      waitMs,
      () => `no frame; closed: ${JSON.stringify(this.closing ?? null)}`,
      () => this.closing !== undefined,
    );
    return this.received[this.taken++] as Frame;
  }

  /** Sends, and returns the answer: by then the server has handled all that was sent before. */
  async echo(data: unknown, waitMs = WAIT_MS): Promise<unknown> {
    this.send('echo', data);
    return (await this.next(waitMs)).data;
  }

  async closed(waitMs = WAIT_MS): Promise<Closed> {
    await this.wait.until(
      () => this.closing !== undefined,
      waitMs,
      () => 'not closed',
    );
    return this.closing as Closed;
  }

  /** Closes politely and waits for the end. */
  async leave(code = 1000, reason = ''): Promise<Closed> {
    this.webSocket.close(code, reason);
    return this.closed();
  }
}

/** Comes to the door, and says what happened there. What was opened is terminated when the test is finished. */
export function attempt(url: string, options: ClientOptions = {}): Promise<Client | HttpRefusal> {
  const webSocket = new WebSocket(url, { handshakeTimeout: 10_000, ...options });
  const client = new Client(webSocket);
  onTestFinished(() => webSocket.terminate());
  return new Promise((resolve, reject) => {
    webSocket.on('open', () => resolve(client));
    webSocket.on('error', reject);
    webSocket.on('unexpected-response', (_request, response) => {
      answerOf(response).then(resolve, reject);
    });
  });
}

/** For who is expected to get in. */
export async function connect(url: string, options?: ClientOptions): Promise<Client> {
  const outcome = await attempt(url, options);
  if (outcome instanceof Client) return outcome;
  throw new Error(`refused: ${outcome.status} ${JSON.stringify(outcome.body)}`);
}

/** For who is expected to be refused over HTTP. */
export async function refusal(url: string, options?: ClientOptions): Promise<HttpRefusal> {
  const outcome = await attempt(url, options);
  if (outcome instanceof Client) throw new Error('let in');
  return outcome;
}

async function answerOf(response: IncomingMessage): Promise<HttpRefusal> {
  const chunks: Buffer[] = [];
  for await (const chunk of response) chunks.push(chunk as Buffer);
  const text = Buffer.concat(chunks).toString();
  const isJson = response.headers['content-type']?.startsWith('application/json');
  return {
    status: response.statusCode ?? 0,
    headers: response.headers,
    body: isJson ? JSON.parse(text) : text,
  };
}
