import { Socket, type SocketConstructorOpts } from 'node:net';
import type { Duplex } from 'node:stream';
import type { Transport } from '../manager/transport.interface.js';
import { CLOSED, forgetStream, type ManagedWebSocket, OPEN, STATE } from './managed-websocket.js';

/** As an upgrade listener gets it, so its byte counters are public. */
type NetworkSocket = Duplex &
  Partial<Pick<Socket, 'bytesRead' | 'bytesWritten'>> & {
    readonly [TRANSPORT]?: WebSocketTransport | undefined;
    readonly _handle?: StreamHandle | null;
  };
/** What Node writes with. Private to it, and asked only about a socket that has something to write. */
interface StreamHandle {
  /** Handed to the kernel, or waiting for it. */
  readonly bytesWritten?: number;
  readonly writeQueueSize?: number;
  readonly _parent?: StreamHandle;
}
type DataListener = (this: NetworkSocket, chunk: Buffer) => void;

const TRANSPORT: unique symbol = Symbol.for('nestjs-websocket-manager:transport');

/** A WebSocket, and the socket under it. */
export class WebSocketTransport implements Transport {
  /** Bytes that we have seen come in; undefined: the socket counts them. */
  private received: number | undefined = undefined;

  constructor(
    private readonly webSocket: ManagedWebSocket,
    private readonly socket: NetworkSocket,
  ) {}

  get isAttentive(): boolean {
    return this.received !== undefined;
  }

  get state(): 'open' | 'closing' | 'closed' {
    const { readyState } = this.webSocket;
    if (readyState === OPEN) return this.socket.destroyed ? 'closed' : 'open';
    return readyState === CLOSED ? 'closed' : 'closing';
  }

  get paused(): boolean {
    return this.webSocket[STATE].isPaused;
  }

  get bytesRead(): number {
    return this.received ?? this.socket.bytesRead ?? 0;
  }

  get bytesWritten(): number {
    return this.socket.bytesWritten ?? 0;
  }

  get bytesQueued(): number {
    // What `ws` is compressing is not in the socket yet, and our ping waits behind it.
    return Math.max(this.socket.writableLength, this.bufferedAmount);
  }

  get isDrained(): boolean {
    return this.socket.writableLength === 0;
  }

  get bytesTaken(): number | undefined {
    const { _handle } = this.socket;
    // Under TLS the one below: what is encrypted is on its way, but not with the kernel.
    const { bytesWritten, writeQueueSize } = _handle?._parent ?? _handle ?? {};
    if (bytesWritten === undefined || writeQueueSize === undefined) return undefined;
    return bytesWritten - writeQueueSize;
  }

  get bufferedAmount(): number {
    return this.webSocket[STATE].bufferedAmount;
  }

  ping(mark?: number): void {
    if (this.webSocket.readyState !== OPEN) return;
    // Before the first ping there is no pong to hear, and who leaves before it pays nothing.
    if (this.received === undefined) this.listen();
    this.webSocket[STATE].ping(mark);
  }

  send(data: string): void {
    if (this.webSocket.readyState === OPEN) this.webSocket[STATE].sendUncounted(data);
  }

  close(code: number, reason: string): void {
    this.webSocket[STATE].close(code, reason);
  }

  terminate(): void {
    try {
      this.webSocket[STATE].terminate();
    } catch (error) {
      // By a WebSocket class of the application's own. Called by timers, where a throw would end the process.
      this.webSocket[STATE].failed('terminate', error);
      this.socket.destroy();
    }
  }

  letGo(): void {
    forgetStream(this.socket);
    if (this.received !== undefined) setTransport(this.socket, undefined);
  }

  /**
   * Takes the place of the one who reads frames, to hand everything on but our pongs: they are nearly all that a server
   * with many idle connections reads, and the reader's part was a tenth of what a beat costs (docs/performance.md).
   */
  private listen(): void {
    const { socket } = this;
    const [theirs, ...others] = socket.rawListeners('data') as DataListener[];
    if (!theirs || others.length > 0) return;
    this.received = this.bytesRead;
    setTransport(socket, this);
    socket.off('data', theirs);
    socket.on('data', listenerBefore(theirs));
  }

  /** @returns whether it was a pong, and nothing else. */
  hear(chunk: Buffer): boolean {
    this.received = (this.received ?? 0) + chunk.length;
    const state = this.webSocket[STATE];
    if (state.connection) state.connection.bytesCame = true;
    return (
      chunk.length === PONG_BYTES &&
      chunk[0] === FIN_AND_PONG &&
      chunk[1] === MASKED_AND_EMPTY &&
      state.takePong()
    );
  }
}

/** Read-only, so that nothing which the application assigns to the properties of its socket gets in between. */
function setTransport(socket: NetworkSocket, value: WebSocketTransport | undefined): void {
  Object.defineProperty(socket, TRANSPORT, { value, configurable: true });
}

/** A header of two bytes and a mask of four. https://www.rfc-editor.org/rfc/rfc6455#section-5.2 */
const PONG_BYTES = 6;
const FIN_AND_PONG = 0x8a;
const MASKED_AND_EMPTY = 0x80;

/** The listener of `ws`, which all of its sockets share, and ours before it. */
const listenersBefore = new WeakMap<DataListener, DataListener>();

function listenerBefore(theirs: DataListener): DataListener {
  let ours = listenersBefore.get(theirs);
  if (!ours) {
    ours = function (chunk) {
      if (!this[TRANSPORT]?.hear(chunk)) theirs.call(this, chunk);
    };
    // As `once` does it: who takes theirs off a socket takes off this.
    Object.assign(ours, { listener: theirs });
    listenersBefore.set(theirs, ours);
  }
  return ours;
}

/** V8 tells so many hidden classes apart at one place of the code; where it has seen more, none. */
const MOST_KINDS_TOLD_APART = 4;
/** It begins to after a few calls; twice what it took on Node 20.19 and 20.20. */
const ROUNDS = 6;

/**
 * On Node 20, each accepted connection leaves 1.3 kB that only a full collection takes away, and makes it due sooner:
 * `net.Socket` copies its options, and V8 11 makes hidden classes anew for every copy while it tells the kinds of
 * options apart that it has seen there. So it is shown one too many, of sockets that are never connected. It costs 2 ms,
 * once; later versions of V8 do not need it. See docs/decisions/0007.
 */
export function settleSocketClasses(): void {
  if (!process.versions.v8.startsWith('11.')) return;
  for (let round = 0; round < ROUNDS; round++) {
    for (let kind = 0; kind <= MOST_KINDS_TOLD_APART; kind++) {
      new Socket({ [`kind${kind}`]: true } as SocketConstructorOpts);
    }
  }
}
