import { readFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';

/** `GET api/events` over a socket of its own, so that it can stop reading. */
export class EventReader {
  /** What was read, headers included. */
  text = '';
  isClosed = false;

  private constructor(readonly socket: Socket) {
    socket.setEncoding('utf8');
    socket.on('data', (chunk: string) => {
      this.text += chunk;
    });
    socket.on('error', () => {});
    socket.on('close', () => {
      this.isClosed = true;
    });
  }

  /** Resolves when the answer's head is there. */
  static async open(
    url: string,
    authorization: string,
    path = '/websocket-managers/api/events',
    method = 'GET',
  ): Promise<EventReader> {
    const { hostname, port } = new URL(url);
    const reader = new EventReader(connect(Number(port), hostname));
    reader.socket.write(
      `${method} ${path} HTTP/1.1\r\nHost: ${hostname}:${port}\r\nAuthorization: ${authorization}\r\n\r\n`,
    );
    await until(() => reader.text.includes('\r\n\r\n') || reader.isClosed, 5_000, 'the head of the answer');
    return reader;
  }

  get status(): number {
    return Number(this.text.split(' ')[1]);
  }

  get head(): string {
    return this.text.split('\r\n\r\n')[0] ?? '';
  }

  /** The data of all events of one type. */
  of(type: string): Record<string, unknown>[] {
    // What is between chunks stands on lines of its own.
    const body = this.text.slice(this.head.length).replace(/\r\n[0-9a-f]+\r\n/g, '');
    const found = body.matchAll(new RegExp(`^event: ${type}\nid: \\d+\ndata: (.*)\n$`, 'gm'));
    return [...found].map(([, data]) => JSON.parse(data ?? '') as Record<string, unknown>);
  }

  stopReading(): void {
    this.socket.pause();
  }

  readOn(): void {
    this.socket.resume();
  }

  close(): void {
    this.socket.destroy();
  }
}

/** As long as a user id may be, and three times as many bytes. */
const LONG_USER_ID = encodeURIComponent('日'.repeat(256));
const AT_ONCE = 40;

/** Has so many upgrades refused, each of a user with a long name. @returns the number of answers with the status. */
export async function refuseMany(socketUrl: URL, times: number, status: number): Promise<number> {
  const { hostname, port, pathname } = socketUrl;
  const head = [
    `GET ${pathname}?userId=${LONG_USER_ID} HTTP/1.1`,
    `Host: ${hostname}:${port}`,
    'Connection: Upgrade',
    'Upgrade: websocket',
    'Sec-WebSocket-Version: 13',
    'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
  ].join('\r\n');
  let left = times;
  let refused = 0;
  const one = () =>
    new Promise<void>((resolve) => {
      let text = '';
      const socket = connect(Number(port), hostname, () => socket.write(`${head}\r\n\r\n`));
      socket.on('data', (chunk) => {
        text += chunk.toString('latin1');
      });
      socket.on('error', () => {});
      socket.on('close', () => {
        if (text.startsWith(`HTTP/1.1 ${status}`)) refused++;
        resolve();
      });
    });
  const worker = async () => {
    while (left-- > 0) await one();
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  return refused;
}

/** Resident memory of a process, in MiB. */
export function residentMiB(pid: number | undefined): number {
  const [, kilobytes] = /^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? [];
  return Number(kilobytes) / 1024;
}

async function until(condition: () => boolean, withinMs: number, what: string): Promise<void> {
  const endsAt = performance.now() + withinMs;
  while (!condition()) {
    if (performance.now() > endsAt) throw new Error(`Waited ${withinMs} ms in vain for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
