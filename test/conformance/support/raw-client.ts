import { connect, type Socket } from 'node:net';
import { BoundedWait } from '../../support/bounded-wait.js';
import { describeFrame, frame, hex, PING, PONG, type ReceivedFrame, readFrame } from './wire.js';

const WAIT_MS = 3_000;
/** A server that has ended a connection, and one that does not read, leave bytes unread. */
const MOST_TURNS = 50;
/** The key of the example in RFC 6455, section 1.3: the same on all sides, so that the answers can be compared. */
export const KEY = 'dGhlIHNhbXBsZSBub25jZQ==';

/** The request of an opening handshake; `undefined` leaves a header out, a list repeats it. */
export function request(
  target: string,
  headers: Readonly<Record<string, string | readonly string[] | undefined>> = {},
  line = `GET ${target} HTTP/1.1`,
): string {
  const all: Record<string, string | readonly string[] | undefined> = {
    Host: 'localhost',
    Connection: 'Upgrade',
    Upgrade: 'websocket',
    'Sec-WebSocket-Version': '13',
    'Sec-WebSocket-Key': KEY,
    ...headers,
  };
  const lines = Object.entries(all).flatMap(([name, value]) =>
    (typeof value === 'string' ? [value] : (value ?? [])).map((one) => `${name}: ${one}`),
  );
  return `${line}\r\n${lines.join('\r\n')}\r\n\r\n`;
}

/** One turn of the event loop: what was written before has been read by a server of this process. */
export function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** A TCP connection that writes exactly what it is told to, and keeps everything that it reads. */
export class RawClient {
  /** The head of the HTTP response. */
  head = '';
  /** What came after the head, in the order of arrival; without pings that `isHeartbeat` knows. */
  readonly frames: ReceivedFrame[] = [];
  /** What is no complete frame. */
  rest: Buffer = Buffer.alloc(0);
  /** Empty pings that the heartbeat sent. They are answered. */
  heartbeats = 0;
  /** The server has ended or reset the connection. */
  ended = false;
  private readonly wait = new BoundedWait();
  private endings = 0;
  private seen = 0;

  private constructor(
    readonly socket: Socket,
    private readonly ignoresHeartbeat: boolean,
  ) {
    socket.setNoDelay(true);
    socket.on('data', (chunk) => this.take(chunk));
    // A reset after the server's last byte is the end of the connection, as a FIN is.
    socket.on('error', () => {});
    const end = () => {
      this.ended = true;
      this.wait.wake();
    };
    socket.on('end', end);
    socket.on('close', end);
  }

  /** @param ignoresHeartbeat whether empty pings of the server are the heartbeat's */
  static async open(port: number, ignoresHeartbeat: boolean): Promise<RawClient> {
    const socket = connect({ port, host: '127.0.0.1' });
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('error', reject);
    });
    return new RawClient(socket, ignoresHeartbeat);
  }

  write(bytes: Buffer | string): void {
    if (!this.socket.destroyed && this.socket.writable) this.socket.write(bytes);
  }

  /** Resolves when an HTTP response is complete: its body, or the end of the connection where it announces that. */
  async body(): Promise<string> {
    const length = Number(/^content-length: (\d+)/im.exec(this.head)?.[1] ?? Number.POSITIVE_INFINITY);
    const isLast = /^connection: close/im.test(this.head) || length === Number.POSITIVE_INFINITY;
    await this.until(() => this.ended || (!isLast && this.rest.length >= length), 'the end of the response');
    return this.rest.toString('latin1');
  }

  /**
   * Writes each part as a TCP segment of its own, which the server has read before the next is written.
   * @param bytesRead of the server's socket; undefined where it is not known: then two turns have to do
   */
  async segments(parts: readonly Buffer[], bytesRead?: () => number): Promise<void> {
    let wanted = bytesRead?.() ?? 0;
    for (const part of parts) {
      if (part.length === 0) continue;
      this.write(part);
      wanted += part.length;
      // The first turn may end before the event loop has come to the sockets.
      for (let i = 0; i < 2; i++) await turn();
      if (!bytesRead) continue;
      for (let i = 0; i < MOST_TURNS && bytesRead() < wanted && !this.ended; i++) await turn();
    }
  }

  /** Resolves when the response has a complete head. */
  async response(): Promise<string> {
    await this.until(() => this.head.endsWith('\r\n\r\n') || this.ended, 'the response of the handshake');
    return this.head;
  }

  /** Resolves when everything sent so far has been read: a ping is answered, or the connection has ended. */
  async settle(): Promise<'open' | 'ended'> {
    const payload = `end ${++this.endings}`;
    const isAnswer = ({ opcode, payload: got }: ReceivedFrame) =>
      opcode === PONG && got.toString() === payload;
    this.write(frame(PING, payload));
    await this.until(() => this.ended || this.frames.some(isAnswer), 'the pong of the last ping');
    return this.ended ? 'ended' : 'open';
  }

  /** Resolves when the server has ended the connection. */
  async end(waitMs = WAIT_MS): Promise<void> {
    await this.until(() => this.ended, 'the end of the connection', waitMs);
  }

  /** Resolves when so many frames have come in. */
  async count(frames: number): Promise<void> {
    await this.until(() => this.frames.length >= frames || this.ended, `${frames} frames`);
  }

  async heartbeat(): Promise<void> {
    await this.until(() => this.heartbeats > 0, 'a ping of the heartbeat');
  }

  /** What has come in since the last call, one line for each frame. */
  newLines(): string[] {
    const lines = this.frames.slice(this.seen).map(describeFrame);
    this.seen = this.frames.length;
    if (this.rest.length > 0) lines.push(`incomplete: ${hex(this.rest)}`);
    if (this.ended) lines.push('end of the connection');
    return lines;
  }

  private take(chunk: Buffer): void {
    this.rest = Buffer.concat([this.rest, chunk]);
    if (!this.head.endsWith('\r\n\r\n')) {
      const end = this.rest.indexOf('\r\n\r\n');
      if (end < 0) return;
      this.head = this.rest.subarray(0, end + 4).toString('latin1');
      this.rest = this.rest.subarray(end + 4);
    }
    // After any other status comes a body.
    const isUpgraded = this.head.startsWith('HTTP/1.1 101');
    for (let next = isUpgraded && readFrame(this.rest); next; next = readFrame(this.rest)) {
      this.rest = this.rest.subarray(next.bytes.length);
      if (this.ignoresHeartbeat && next.opcode === PING && next.payload.length === 0) {
        this.heartbeats++;
        this.write(frame(PONG));
      } else {
        this.frames.push(next);
      }
    }
    this.wait.wake();
  }

  private until(isThere: () => boolean, what: string, waitMs = WAIT_MS): Promise<void> {
    const state = () =>
      `no ${what}; ${this.ended ? 'ended' : 'open'}; head ${JSON.stringify(this.head)}; frames ${this.frames.map(describeFrame).join(', ')}; rest ${hex(this.rest)}`;
    return this.wait.until(isThere, waitMs, state);
  }
}
