import type { EventEmitter } from 'node:events';
import type { Connection } from '../manager/connection.js';
import type { Inflater, Receiver, WsInternals } from './ws-internals.js';

/** All connections of a user together may have so many times the bytes of one. */
const CONNECTIONS_OF_A_USER = 4;
/** Messages up to this size are copied into shared pages: an object each would be many times their size. */
const SMALL_BYTES = 1_024;
const LEAST_PAGE_BYTES = 1_024;
const MOST_PAGE_BYTES = 16_384;
/** Length and kind of a small message. */
const HEADER_BYTES = 4;
/** What a larger message costs beside its payload. */
const OBJECT_BYTES = 128;
/** What may still arrive after reading has stopped: one read of 64 KiB, and what Node keeps for the receiver. */
const SLACK_BYTES = 131_072;
/** The most that DEFLATE makes of one byte: https://zlib.net/zlib_tech.html */
const MOST_INFLATED = 1_032;
/** Below this part of its bound, a connection may inflate one more message of unknown size. */
const SMALL_PART = 1 / 8;
/** Handed on in one turn of the event loop, so that other connections do not wait for a flood. */
const MESSAGES_A_TURN = 64;

const DEFLATE = 'permessage-deflate';
/** `readyState` of an open socket. */
const OPEN = 1;

/** Bytes of buffered messages, by user. */
export class BufferBudget {
  private readonly users = new Map<string, number>();
  /** Told when a user's bytes have become fewer. */
  private readonly waiting = new Map<string, Set<() => void>>();
  readonly perUser: number;

  /** @param perConnection in bytes; one message may be larger, where it is the only one of its connection */
  constructor(readonly perConnection: number) {
    this.perUser = CONNECTIONS_OF_A_USER * perConnection;
  }

  /** Users with buffered messages. */
  get size(): number {
    return this.users.size;
  }

  usedBy(userId: string): number {
    return this.users.get(userId) ?? 0;
  }

  add(userId: string, bytes: number): void {
    if (bytes === 0) return;
    const used = this.usedBy(userId) + bytes;
    if (used > 0) this.users.set(userId, used);
    else this.users.delete(userId);
    if (bytes < 0) for (const retry of [...(this.waiting.get(userId) ?? [])]) retry();
  }

  wait(userId: string, retry: () => void): void {
    const waiting = this.waiting.get(userId) ?? new Set();
    this.waiting.set(userId, waiting.add(retry));
  }

  stopWaiting(userId: string, retry: () => void): void {
    const waiting = this.waiting.get(userId);
    waiting?.delete(retry);
    if (waiting?.size === 0) this.waiting.delete(userId);
  }
}

/** A listener that Nest, and not the application, has put on the socket. */
export type GatewayListener = (this: unknown, data: unknown, isBinary: boolean) => void;

type Listener = ((this: unknown, ...args: unknown[]) => void) & { readonly listener?: Listener };

/** What buffered messages need of their socket. */
export interface BufferingSocket {
  readonly webSocket: { readonly readyState: number };
  readonly connection: Connection | undefined;
  buffered: BufferedMessages | undefined;
  failed(event: string, error: unknown): void;
}

/** Small messages in a row, each behind its header; or one that is not small. */
type Entry = Page | { readonly data: unknown; readonly isBinary: boolean; readonly bytes: number };

class Page {
  readonly memory: Buffer;
  end = 0;
  begin = 0;

  constructor(bytes: number) {
    this.memory = Buffer.allocUnsafeSlow(bytes);
  }

  hasRoom(bytes: number): boolean {
    return this.end + HEADER_BYTES + bytes <= this.memory.length;
  }

  push(data: Buffer, isBinary: boolean): void {
    this.memory.writeUInt32LE(data.length * 2 + (isBinary ? 1 : 0), this.end);
    this.end += HEADER_BYTES;
    this.end += data.copy(this.memory, this.end);
  }

  shift(): { readonly data: Buffer; readonly isBinary: boolean } {
    const header = this.memory.readUInt32LE(this.begin);
    const start = this.begin + HEADER_BYTES;
    this.begin = start + (header >>> 1);
    return { data: this.memory.subarray(start, this.begin), isBinary: (header & 1) === 1 };
  }
}

/**
 * Messages of one socket for the gateways' handlers, kept until its asynchronous `handleConnection` has settled. Listeners of
 * the application are called meanwhile as ever. The memory is bounded in bytes: beyond the bound nothing more is read and
 * nothing more is inflated, so that the peer has to wait.
 */
export class BufferedMessages {
  /** Nothing is read at the moment, so silence says nothing. */
  isStopped = false;
  private readonly entries: Entry[] = [];
  private readonly listeners: GatewayListener[] = [];
  private readonly deferred: (() => void)[] = [];
  private readonly userId: string;
  private readonly inflater: Inflater | undefined;
  private readonly receiver: Receiver | undefined;
  /** `handleConnection` hooks that have still to settle. */
  private holds = 0;
  private used = 0;
  /** What the message that is being inflated may come to. */
  private reserved = 0;
  /** Bytes given to the receiver since buffering began. */
  private read = 0;
  private emission = 0;
  private takenEmission = 0;
  private isReplaying = false;
  private isWanted = true;
  private hasLeft = false;
  /** The bounds are not kept by reading less any more: what does not fit is dropped. */
  private isLifted = false;
  private isOverfull = false;
  /** The piece that the receiver waits for, while it may not be inflated. */
  private inflateNow: (() => void) | undefined;
  private retry: (() => void) | undefined;
  private readonly restores: (() => void)[] = [];

  constructor(
    private readonly socket: BufferingSocket,
    private readonly budget: BufferBudget,
  ) {
    this.userId = socket.connection?.manager.userId ?? '';
    const { _receiver: receiver, _extensions: extensions } = socket.webSocket as WsInternals;
    this.receiver = receiver;
    this.inflater = extensions?.[DEFLATE];
    if (typeof receiver?.cork === 'function') this.watchReads(receiver);
    if (typeof this.inflater?.decompress === 'function') this.watchInflating(this.inflater);
  }

  /** Messages wait, or are just being handed on. */
  get isPending(): boolean {
    return this.entries.length > 0 || this.isReplaying;
  }

  /** One more hook to wait for: each has to be matched by one {@link release}. */
  hold(): void {
    this.holds++;
  }

  /** A message is about to be emitted. */
  beginMessage(): void {
    this.emission++;
  }

  /** Keeps the message that is being emitted for a gateway's listener. @returns false: it is to be handled now. */
  take(listener: GatewayListener, data: unknown, isBinary: boolean): boolean {
    if (this.isReplaying) return false;
    if (!this.listeners.includes(listener)) this.listeners.push(listener);
    if (this.takenEmission === this.emission) return true;
    this.takenEmission = this.emission;
    this.keep(data, isBinary);
    return true;
  }

  /** Keeps a gateway's close until the messages before it are handled. @returns false: it is to be told now. */
  defer(tell: () => void): boolean {
    if (!this.hasLeft || !this.isPending) return false;
    this.deferred.push(tell);
    return true;
  }

  /** Whatever listeners for messages and the close are added within the call get them as a gateway's listeners do. */
  capture(addListeners: () => void): void {
    const webSocket = this.socket.webSocket as unknown as EventEmitter;
    const events = ['message', 'close'] as const;
    const before = events.map((event) => webSocket.listenerCount(event));
    addListeners();
    events.forEach((event, i) => {
      for (const listener of webSocket.rawListeners(event).slice(before[i]) as Listener[]) {
        webSocket.off(event, listener);
        webSocket.on(
          event,
          event === 'message' ? this.messageListener(listener) : this.closeListener(listener),
        );
      }
    });
  }

  private messageListener(listener: Listener): Listener {
    const { socket } = this;
    const waiting: GatewayListener = function (data, isBinary) {
      if (!socket.buffered?.take(waiting, data, isBinary)) listener.call(this, data, isBinary);
    };
    return removableAs(listener, waiting as Listener);
  }

  private closeListener(listener: Listener): Listener {
    const { socket } = this;
    return removableAs(listener, function (...args) {
      if (!socket.buffered?.defer(() => tell(this))) tell(this);
      function tell(self: unknown): void {
        listener.apply(self, args);
      }
    });
  }

  /**
   * The socket has closed.
   * @param hasLeft the peer left by itself: what it said before is still handled
   */
  noteClosed(hasLeft: boolean): void {
    this.hasLeft = hasLeft;
  }

  /**
   * A hook has settled. After the last one, hands on what was kept, and ends the buffering.
   * @param isWanted false: what was kept is dropped
   */
  release(isWanted = true): void {
    this.isWanted &&= isWanted;
    this.holds--;
    if (this.holds <= 0 && !this.isReplaying) this.replay();
  }

  /** Reads on in any case: the socket closes, and the peer's answer to that may be behind its messages. */
  lift(): void {
    if (this.isLifted) return;
    this.isLifted = true;
    this.readOn();
  }

  private keep(data: unknown, isBinary: boolean): void {
    const { budget, userId } = this;
    const size = sizeOf(data);
    const isSmall = size <= SMALL_BYTES && Buffer.isBuffer(data);
    const bytes = size + (isSmall ? HEADER_BYTES : OBJECT_BYTES);
    const { reserved } = this;
    this.reserved = 0;
    const isKept = !this.isOverfull && this.fits(bytes, reserved);
    if (isKept) this.used += bytes;
    budget.add(userId, (isKept ? bytes : 0) - reserved);
    if (!isKept) {
      if (!this.isOverfull) this.overflow();
      return;
    }
    if (!isSmall) {
      this.entries.push({ data, isBinary, bytes });
      return;
    }
    let page = this.entries.at(-1);
    if (!(page instanceof Page) || !page.hasRoom(size)) {
      page = new Page(Math.min(MOST_PAGE_BYTES, Math.max(LEAST_PAGE_BYTES, this.used, size + HEADER_BYTES)));
      this.entries.push(page);
    }
    page.push(data, isBinary);
  }

  private fits(bytes: number, reserved: number): boolean {
    const { budget, used } = this;
    if (this.isEnding && budget.usedBy(this.userId) - reserved + bytes > budget.perUser) return false;
    return used === 0 || used + bytes <= budget.perConnection + (this.isLifted ? 0 : SLACK_BYTES);
  }

  /** A peer that leaves cannot be made to wait: what it has sent is read to the end at once. */
  private get isEnding(): boolean {
    return this.isLifted || this.socket.webSocket.readyState !== OPEN;
  }

  /** Only where the socket ends, or where `ws` has no place for us to stop it. */
  private overflow(): void {
    this.isOverfull = true;
    if (this.isEnding) return;
    const { perConnection } = this.budget;
    const error = new Error(
      `more than ${perConnection} bytes of messages before handleConnection has settled`,
    );
    this.socket.failed('message', error);
    this.socket.connection?.end({ reason: 'internal' });
  }

  /** An own method in place of the one of the prototype, which `ws` calls with all that it reads. */
  private watchReads(receiver: Receiver): void {
    const write = receiver.write as (this: Receiver, chunk: Buffer, ...rest: unknown[]) => boolean;
    const watched = (chunk: Buffer, ...rest: unknown[]) => {
      const bytes = chunk?.length ?? 0;
      if (!this.isStopped && this.isFull(bytes)) {
        // From here on Node keeps what is written, and `ws` pauses the socket when that is too much for it.
        receiver.cork();
        this.stopped();
      }
      this.read += bytes;
      return write.call(receiver, chunk, ...rest);
    };
    this.restores.push(replaceMethod(receiver, 'write', watched));
  }

  private isFull(bytes: number): boolean {
    const { budget, used, read } = this;
    if (budget.usedBy(this.userId) + bytes > budget.perUser) return true;
    return used > 0 && read + bytes > budget.perConnection;
  }

  /** The receiver inflates one piece after the other, and reads nothing while it waits for one. */
  private watchInflating(inflater: Inflater): void {
    const decompress = inflater.decompress as NonNullable<Inflater['decompress']>;
    const watched: typeof decompress = (data, isLast, callback) => {
      const most = Math.min(
        this.receiver?._maxPayload || Number.POSITIVE_INFINITY,
        data.length * MOST_INFLATED,
      );
      const inflate = () => {
        this.reserved += most;
        this.budget.add(this.userId, most);
        decompress.call(inflater, data, isLast, callback);
      };
      if (this.mayInflate(most)) {
        inflate();
        return;
      }
      this.inflateNow = () => decompress.call(inflater, data, isLast, callback);
      this.stopped();
      this.retry = () => {
        if (!this.mayInflate(most)) return;
        this.resumeInflating();
        inflate();
      };
      this.budget.wait(this.userId, this.retry);
    };
    this.restores.push(replaceMethod(inflater, 'decompress', watched));
  }

  /** Whether one more piece, which may come to so many bytes, is within the bounds. */
  private mayInflate(bytes: number): boolean {
    const { budget, used, reserved } = this;
    const { perConnection, perUser } = budget;
    if (budget.usedBy(this.userId) + bytes > perUser) return false;
    return used <= SMALL_PART * perConnection || used + reserved + bytes <= perConnection;
  }

  private resumeInflating(): void {
    if (this.retry) this.budget.stopWaiting(this.userId, this.retry);
    this.retry = undefined;
    this.inflateNow = undefined;
    this.isStopped = (this.receiver?.writableCorked ?? 0) > 0;
  }

  private stopped(): void {
    this.isStopped = true;
    const { connection } = this.socket;
    if (connection) connection.isCalm = false;
  }

  private replay(): void {
    for (let left = MESSAGES_A_TURN; left > 0; left--) {
      const message = this.isHeard() ? this.shift() : undefined;
      if (!message) {
        this.finish();
        return;
      }
      this.deliver(message);
    }
    setImmediate(() => this.replay());
  }

  private isHeard(): boolean {
    return this.isWanted && (this.hasLeft || this.socket.connection?.detached === false);
  }

  private shift(): { readonly data: unknown; readonly isBinary: boolean } | undefined {
    const [entry] = this.entries;
    if (!(entry instanceof Page)) return this.entries.shift() as Exclude<Entry, Page> | undefined;
    const message = entry.shift();
    if (entry.begin === entry.end) this.entries.shift();
    return message;
  }

  private deliver({ data, isBinary }: { readonly data: unknown; readonly isBinary: boolean }): void {
    this.isReplaying = true;
    for (const listener of this.listeners) {
      try {
        listener.call(this.socket.webSocket, data, isBinary);
      } catch (error) {
        this.socket.failed('message', error);
      }
    }
    this.isReplaying = false;
  }

  private finish(): void {
    this.budget.add(this.userId, -this.used - this.reserved);
    this.used = this.reserved = 0;
    this.entries.length = 0;
    this.socket.buffered = undefined;
    // In a turn of its own, as it would have been read: Nest takes some promises to get a message to its handler.
    const { deferred } = this;
    if (deferred.length > 0) setImmediate(() => this.tellClose());
    this.readOn();
  }

  private tellClose(): void {
    for (const tell of this.deferred) {
      try {
        tell();
      } catch (error) {
        this.socket.failed('close', error);
      }
    }
  }

  private readOn(): void {
    const { receiver, inflateNow, isStopped } = this;
    for (const restore of this.restores.splice(0)) restore();
    this.resumeInflating();
    this.isStopped = false;
    inflateNow?.();
    if (isStopped) receiver?.uncork();
  }
}

/** Puts an own method before the one that an object has. @returns what takes it off again */
function replaceMethod<T extends object, K extends keyof T>(object: T, name: K, method: unknown): () => void {
  const own = Object.getOwnPropertyDescriptor(object, name);
  object[name] = method as T[K];
  return () => {
    if (own) Object.defineProperty(object, name, own);
    else Reflect.deleteProperty(object, name);
  };
}

/** As `once` does it: removing the one from a socket removes the other. */
function removableAs(listener: Listener, waiting: Listener): Listener {
  return Object.assign(waiting, { listener: listener.listener ?? listener });
}

/** As the application has chosen with `binaryType`. */
function sizeOf(data: unknown): number {
  if (Array.isArray(data)) return data.reduce<number>((sum, part) => sum + sizeOf(part), 0);
  if (data instanceof Blob) return data.size;
  return (data as { byteLength?: number }).byteLength ?? 0;
}
