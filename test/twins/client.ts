import { randomBytes } from 'node:crypto';
import { connect as connectTcp, type Socket } from 'node:net';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { WebSocket } from 'ws';
import { shown } from './program.js';

/** What the client of a program does, from its first connection to its last. */
export type ClientScript = (clients: Clients) => Promise<unknown>;

const TURNS = 20;
/** Longer than anything takes that is going to happen, on a busy machine too. */
const WAIT_MS = 3_000;

/** Things to wait for, which are looked at again whenever something was seen. */
class Waiting {
  private readonly waiters = new Set<() => void>();

  wake(): void {
    for (const waiter of this.waiters) waiter();
  }

  /** @returns whether it came true in time. */
  until(isTrue: () => boolean, waitMs = WAIT_MS): Promise<boolean> {
    return new Promise((resolve) => {
      const done = (result: boolean) => {
        clearTimeout(timer);
        this.waiters.delete(look);
        resolve(result);
      };
      const look = () => {
        if (isTrue()) done(true);
      };
      const timer = setTimeout(() => done(false), waitMs);
      this.waiters.add(look);
      look();
    });
  }
}

/** The connections of one run, and what they have seen, oldest first. */
export class Clients {
  readonly trace: string[] = [];
  private readonly open = new Set<{ destroy(): void }>();

  constructor(
    readonly port: number,
    private readonly whenQuiet: (ms: number) => Promise<void>,
  ) {}

  note(what: string): void {
    this.trace.push(what);
  }

  /** Those of each connection together: in which order two of them see something is up to the network. */
  get traces(): string[] {
    const labelOf = (line: string) => /^\w+: /.exec(line)?.[0] ?? '';
    return this.trace.toSorted((a, b) => (labelOf(a) < labelOf(b) ? -1 : labelOf(a) > labelOf(b) ? 1 : 0));
  }

  /** Connects; `label` stands before its lines in the trace. */
  async connect(path = '/', { label = '', headers = {} }: { label?: string; headers?: object } = {}) {
    const client = new Client(
      this,
      label,
      new WebSocket(`ws://127.0.0.1:${this.port}${path}`, { headers: { ...headers } }),
    );
    this.open.add(client);
    await client.opened();
    return client;
  }

  /** Connects with a socket that sends the bytes that it is told to send. */
  async connectRaw(path = '/', first: readonly Buffer[] = []) {
    const raw = new RawClient(this, connectTcp(this.port, '127.0.0.1'));
    this.open.add(raw);
    await raw.shakeHands(path, first);
    return raw;
  }

  /** Ends what the script has left open. Nothing is noted from here on. */
  end(): void {
    for (const client of this.open) client.destroy();
  }

  /** Waits until the server has taken what was sent, and nothing has been noted there for a time. */
  async quiet(ms = 15): Promise<void> {
    await this.whenQuiet(ms);
    // What it has sent is here; it is read in the next turns.
    for (let turn = 0; turn < TURNS; turn++) await nextTurn();
  }
}

/** One connection of the client: the library `ws`. */
export class Client {
  private readonly waiting = new Waiting();
  private readonly frames: { readonly text: string; readonly at: number }[] = [];
  private taken = 0;
  private isOpen = false;
  private isClosed = false;
  private isEnded = false;

  constructor(
    private readonly clients: Clients,
    private readonly label: string,
    readonly socket: WebSocket,
  ) {
    socket.on('open', () => {
      this.isOpen = true;
      this.note('open');
    });
    socket.on('message', (data, isBinary) => {
      const text = isBinary ? `binary ${shown(data)}` : `text ${shown(String(data))}`;
      this.frames.push({ text: String(data), at: performance.now() });
      this.note(text);
    });
    socket.on('ping', (data) => {
      // The module's own heartbeat has no payload.
      if (data.length > 0) this.note(`ping ${data}`);
    });
    socket.on('pong', (data) => this.note(`pong ${data}`));
    socket.on('unexpected-response', (_request, { statusCode }) => {
      this.isClosed = true;
      this.note(`HTTP ${statusCode}`);
      socket.terminate();
    });
    socket.on('error', (error) => {
      if (this.isOpen || !this.isClosed) this.note(`error ${shown(error)}`);
    });
    socket.on('close', (code, reason) => {
      this.isClosed = true;
      this.note(`close ${code} ${shown(String(reason))}`);
    });
  }

  async opened(): Promise<void> {
    await this.waiting.until(() => this.isOpen || this.isClosed);
  }

  /** Sends a message for a handler. */
  send(event: string, data?: unknown): void {
    this.raw(JSON.stringify({ event, data }));
  }

  raw(data: string | Buffer): void {
    this.socket.send(data, () => {});
  }

  /** Waits for a number of messages, each of which is waited for once. */
  async next(count = 1): Promise<void> {
    this.taken += count;
    await this.expect(`${this.taken} messages`, () => this.frames.length >= this.taken);
  }

  /** Waits for a message that contains the text. */
  async until(text: string): Promise<void> {
    await this.expect(text, () => this.frames.some((frame) => frame.text.includes(text)));
    this.taken = this.frames.length;
  }

  /** Waits for the end of the connection. */
  async closed(): Promise<void> {
    await this.expect('close', () => this.isClosed);
  }

  /** Notes whether two messages came so far apart. */
  noteGap(first: string, second: string, ms: number): void {
    const at = (text: string) => this.frames.find((frame) => frame.text.includes(text))?.at ?? Number.NaN;
    this.note(`${second} ${at(second) - at(first) >= ms ? '' : 'less than '}${ms} ms after ${first}`);
  }

  /** Closes, and waits for the server to agree. */
  async close(code?: number, reason?: string): Promise<void> {
    this.socket.close(code, reason);
    await this.closed();
  }

  /** Resets the connection, without a word. */
  reset(): void {
    (this.socket as unknown as { _socket: Socket })._socket.resetAndDestroy();
  }

  /** Ends this half of the TCP connection, and no more. */
  halfClose(): void {
    (this.socket as unknown as { _socket: Socket })._socket.end();
  }

  destroy(): void {
    this.isEnded = true;
    this.socket.terminate();
  }

  private async expect(what: string, isTrue: () => boolean): Promise<void> {
    const isThere = await this.waiting.until(() => isTrue() || this.isClosed);
    if (!isThere) this.note(`waited in vain for ${what}`);
  }

  private note(what: string): void {
    if (!this.isEnded) this.clients.note(`${this.label}${what}`);
    this.waiting.wake();
  }
}

/** One connection that sends bytes of any kind, several frames in one write for example, and reads frames. */
export class RawClient {
  private readonly waiting = new Waiting();
  private read = Buffer.alloc(0);
  private isHeadRead = false;
  private frames = 0;
  private isEnded = false;
  private isClosed = false;

  constructor(
    private readonly clients: Clients,
    readonly socket: Socket,
  ) {
    socket.setNoDelay();
    socket.on('data', (chunk) => {
      this.read = Buffer.concat([this.read, chunk]);
      this.take();
    });
    socket.on('end', () => this.note('end'));
    socket.on('error', (error) => this.note(`error ${shown(error)}`));
    socket.on('close', () => {
      this.isClosed = true;
      this.note('closed');
    });
  }

  /** Asks for the upgrade; what `first` contains goes with it, in the same write. */
  async shakeHands(path: string, first: readonly Buffer[]): Promise<void> {
    const key = randomBytes(16).toString('base64');
    const head = [
      `GET ${path} HTTP/1.1`,
      'Host: localhost',
      'Connection: Upgrade',
      'Upgrade: websocket',
      'Sec-WebSocket-Version: 13',
      `Sec-WebSocket-Key: ${key}`,
    ];
    this.socket.write(Buffer.concat([Buffer.from(`${head.join('\r\n')}\r\n\r\n`), ...first]));
    await this.waiting.until(() => this.isHeadRead || this.isClosed);
  }

  /** Sends the frames in one write. */
  write(...frames: readonly Buffer[]): void {
    this.socket.write(Buffer.concat(frames));
  }

  async next(count = 1): Promise<void> {
    const wanted = this.frames + count;
    if (!(await this.waiting.until(() => this.frames >= wanted || this.isClosed)))
      this.note(`waited in vain for frame ${wanted}`);
  }

  /** Waits until so many frames have come, from the first on. */
  async frame(count: number): Promise<void> {
    if (!(await this.waiting.until(() => this.frames >= count || this.isClosed)))
      this.note(`waited in vain for frame ${count}`);
  }

  async closed(): Promise<void> {
    if (!(await this.waiting.until(() => this.isClosed))) this.note('waited in vain for the end');
  }

  destroy(): void {
    this.isEnded = true;
    this.socket.destroy();
  }

  private take(): void {
    if (!this.isHeadRead) {
      const end = this.read.indexOf('\r\n\r\n');
      if (end < 0) return;
      this.note(String(this.read.subarray(0, this.read.indexOf('\r\n'))));
      this.read = this.read.subarray(end + 4);
      this.isHeadRead = true;
    }
    for (let size = this.frameSize(); size !== undefined; size = this.frameSize()) {
      const { start, length } = size;
      const payload = Buffer.from(this.read.subarray(start, start + length));
      const opcode = (this.read[0] as number) & 0x0f;
      this.read = this.read.subarray(start + length);
      // The module's own heartbeat.
      if (opcode === 9 && length === 0) continue;
      this.frames++;
      const what = opcode === 8 ? `close ${length >= 2 ? payload.readUInt16BE() : ''}` : `frame ${opcode}`;
      this.note(`${what} ${shown(opcode === 8 ? String(payload.subarray(2)) : String(payload))}`);
    }
    this.waiting.wake();
  }

  private frameSize(): { start: number; length: number } | undefined {
    const { read } = this;
    if (read.length < 2) return undefined;
    const short = (read[1] as number) & 0x7f;
    const start = short === 126 ? 4 : short === 127 ? 10 : 2;
    if (read.length < start) return undefined;
    const length =
      short === 126 ? read.readUInt16BE(2) : short === 127 ? Number(read.readBigUInt64BE(2)) : short;
    return read.length < start + length ? undefined : { start, length };
  }

  private note(what: string): void {
    if (!this.isEnded) this.clients.note(what);
    this.waiting.wake();
  }
}
