import { randomBytes } from 'node:crypto';
import { connect, type Socket } from 'node:net';
import { onTestFinished } from 'vitest';
import { BoundedWait } from './bounded-wait.js';

const WAIT_MS = 3_000;

export interface RawAnswer {
  readonly status: number;
  readonly head: string;
  readonly body: string;
}

/** A TCP connection that writes whatever it is told to, and reads HTTP answers and WebSocket frames. */
export class RawSocket {
  private read = Buffer.alloc(0);
  private ended = false;
  private readonly wait = new BoundedWait();

  private constructor(readonly socket: Socket) {
    socket.on('data', (chunk) => {
      this.read = Buffer.concat([this.read, chunk]);
      this.wait.wake();
    });
    socket.on('error', () => {});
    socket.on('close', () => {
      this.ended = true;
      this.wait.wake();
    });
  }

  /** Opens one; it is destroyed when the test is finished. */
  static async open(port: number): Promise<RawSocket> {
    const socket = connect(port, '127.0.0.1');
    onTestFinished(() => void socket.destroy());
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('error', reject);
    });
    return new RawSocket(socket);
  }

  write(...parts: (string | Buffer)[]): void {
    this.socket.write(Buffer.concat(parts.map((part) => Buffer.from(part as string))));
  }

  /** The HTTP answer: up to the end of its body where it says how long that is, else to the end of the connection. */
  async answer(): Promise<RawAnswer> {
    await this.until(() => this.read.includes('\r\n\r\n'));
    const end = this.read.indexOf('\r\n\r\n') + 4;
    const head = this.read.subarray(0, end).toString();
    const status = Number(/^HTTP\/1\.1 (\d{3})/.exec(head)?.[1]);
    const length = Number(/^content-length: (\d+)/im.exec(head)?.[1] ?? 0);
    await this.until(() => this.read.length >= end + length);
    const body = this.read.subarray(end, end + length).toString();
    this.read = this.read.subarray(end + length);
    return { status, head, body };
  }

  /** The payload of the next frame; for a close frame its code. */
  async frame(): Promise<string | number> {
    await this.until(() => this.frameLength() !== undefined);
    const { start, length } = this.frameLength() as { start: number; length: number };
    const payload = this.read.subarray(start, start + length);
    const opcode = (this.read[0] as number) & 0x0f;
    this.read = this.read.subarray(start + length);
    return opcode === 8 ? payload.readUInt16BE(0) : payload.toString();
  }

  /** Resolves when the connection is over. */
  async end(waitMs = WAIT_MS): Promise<void> {
    await this.until(() => this.ended, waitMs);
  }

  private frameLength(): { start: number; length: number } | undefined {
    if (this.read.length < 2) return undefined;
    const short = (this.read[1] as number) & 0x7f;
    const start = short < 126 ? 2 : 4;
    if (this.read.length < start) return undefined;
    const length = short < 126 ? short : this.read.readUInt16BE(2);
    return this.read.length < start + length ? undefined : { start, length };
  }

  private until(isThere: () => boolean, waitMs = WAIT_MS): Promise<void> {
    const what = () => `${this.ended ? 'closed' : 'nothing'}; read: ${this.read}`;
    return this.wait.until(isThere, waitMs, what, () => this.ended);
  }
}

/** An opening handshake as it goes over the wire; `undefined` leaves a header out. */
export function handshake(
  target: string,
  headers: Record<string, string | undefined> = {},
  method = 'GET',
): string {
  const all: Record<string, string | undefined> = {
    Host: 'localhost',
    Connection: 'Upgrade',
    Upgrade: 'websocket',
    'Sec-WebSocket-Version': '13',
    'Sec-WebSocket-Key': randomBytes(16).toString('base64'),
    ...headers,
  };
  const lines = Object.entries(all).flatMap(([name, value]) =>
    value === undefined ? [] : [`${name}: ${value}`],
  );
  return `${method} ${target} HTTP/1.1\r\n${lines.join('\r\n')}\r\n\r\n`;
}

/** A message as a client sends it: `{event, data}` in one masked text frame of less than 126 bytes. */
export function messageFrame(event: string, data: unknown): Buffer {
  const payload = Buffer.from(JSON.stringify({ event, data }));
  if (payload.length > 125) throw new Error('too long for a short frame');
  const mask = randomBytes(4);
  const masked = payload.map((byte, i) => byte ^ (mask[i % 4] as number));
  return Buffer.concat([Buffer.from([0x81, 0x80 | payload.length]), mask, masked]);
}
