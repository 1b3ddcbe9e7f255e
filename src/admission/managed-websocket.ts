import { EventEmitter } from 'node:events';
import type { Duplex } from 'node:stream';
import type { Connection } from '../manager/connection.js';
import type { BufferBudget } from './buffered-messages.js';
import { BufferedMessages } from './buffered-messages.js';
import type { GatewayBinding, Streams } from './message-dispatcher.js';
import { textFrame } from './text-frame.js';
import { DirectOutput, endOnce, forgetFrame, isBetweenFrames, type WsInternals } from './ws-internals.js';

/**
 * What this package uses of `ws`' WebSocket. Described, not imported: platform-ws brings a copy of `ws` of its own,
 * and a class of another copy is another class.
 */
export interface WebSocketLike {
  readonly readyState: number;
  readonly bufferedAmount: number;
  readonly isPaused: boolean;
  /** Those that were negotiated; empty: none. */
  readonly extensions: string;
  send(data: unknown, options?: unknown, callback?: unknown): void;
  ping(data?: unknown, mask?: unknown, callback?: unknown): void;
  pong(data?: unknown, mask?: unknown, callback?: unknown): void;
  close(code?: number, reason?: string): void;
  terminate(): void;
  pause(): void;
  resume(): void;
  on(event: string, listener: (...args: never[]) => void): unknown;
  emit(event: string, ...args: unknown[]): boolean;
  listeners(event: string): unknown[];
  listenerCount(event: string): number;
}

type WebSocketClass = new (...args: never[]) => WebSocketLike;

/** Where a socket carries its connection. A symbol of the registry: two copies of this package agree on it. */
export const CONNECTION: unique symbol = Symbol.for('nestjs-websocket-manager:connection');
/** Where a socket carries all else that this package knows of it. */
export const STATE: unique symbol = Symbol('nestjs-websocket-manager:state');

/**
 * A socket of a server whose upgrades this package decides about. Both are accessors of the prototype: the socket
 * belongs to the application, and has no property that the platform's does not have.
 */
export interface ManagedWebSocket extends WebSocketLike {
  readonly [CONNECTION]: Connection | undefined;
  readonly [STATE]: SocketState;
}

/** The connection of a client, whatever it is: undefined for one that no manager holds. */
export function connectionOf(client: unknown): Connection | undefined {
  if (typeof client !== 'object' || client === null) return undefined;
  return (client as Partial<ManagedWebSocket>)[CONNECTION];
}

/** What happens on sockets that no connection can speak for. */
export interface SocketErrorSink {
  /** A listener of the application threw. */
  listenerFailed(event: string, error: unknown): void;
  /** The peer broke the protocol, or the network broke the connection. */
  peerFailed(error: unknown): void;
}

/** What the sockets of one server have in common. */
export interface SocketKind {
  /** The methods of the server's own WebSocket class, as they are at the moment: a tracer may replace them. */
  readonly base: WebSocketLike;
  /** Ours before them. */
  readonly managed: WebSocketLike;
  readonly sink: SocketErrorSink;
  /** Undefined for a class of the application's own, which may do something else to what it sends. */
  readonly output: DirectOutput | undefined;
  /** `bufferedAmount` without writing the batched answers first. */
  bufferedAmount(webSocket: WebSocketLike): number;
}

/** `readyState` of an open socket, and of one that is gone. */
export const OPEN = 1;
export const CLOSED = 3;

/** FIN and the opcode; no mask, no payload. https://www.rfc-editor.org/rfc/rfc6455#section-5.5.2 */
const EMPTY_PING = Buffer.from([0x89, 0]);

/** Answers of one read that go out in one system call; beyond it, they are written at once. */
const MOST_BATCHED_BYTES = 16_384;
/** Answers are written at once. */
const NO_BATCH = -1;

/** Sockets whose batch is open: as a rule the one that is just read. */
let openBatches: SocketState[] = [];
/** Sockets with answers that are not written yet. */
const unwritten = new Set<SocketState>();
let isWatchingExit = false;

/** The socket for which this package, and not the application, calls `send` at the moment. */
let sending: SocketState | undefined;
/** Whether it sends an answer of a handler, or else what is no traffic of the application. */
let isAnswer = false;

/** One for all sockets. */
const WATCHED = { captureRejections: true };

/** All that this package knows of a socket. There is one for every socket, so each field counts. */
export class SocketState {
  connection: Connection | undefined = undefined;
  /** The first of the gateways that its messages go to. */
  gateway: GatewayBinding | undefined = undefined;
  /** Answers that have not come to their end. */
  streams: Streams | undefined = undefined;
  /** While an asynchronous `handleConnection` runs. */
  buffered: BufferedMessages | undefined = undefined;
  /** The stream under it, where frames may be written to it directly. */
  private stream: Duplex | undefined = undefined;
  /** Bytes of answers that are not written yet, or {@link NO_BATCH}. */
  private batched = NO_BATCH;

  constructor(
    readonly webSocket: WebSocketLike,
    private readonly kind: SocketKind,
  ) {}

  /** Gives the socket to its connection. `stream`: as the upgrade event gave it to us. */
  attach(connection: Connection, stream: Duplex): void {
    this.connection = connection;
    StateOfStream.set(stream, this);
    const { output } = this.kind;
    // With an extension, `ws` may have frames under way that must not be overtaken.
    if (this.webSocket.extensions === '' && output?.knows(this.webSocket as WsInternals))
      this.stream = stream;
  }

  get bufferedAmount(): number {
    return this.kind.bufferedAmount(this.webSocket);
  }

  /** Nothing is read at the moment, by the application's order or by ours. */
  get isPaused(): boolean {
    return this.webSocket.isPaused || this.buffered?.isStopped === true;
  }

  /** What the application has called, or this package by {@link answer} and {@link sendUncounted}. */
  send(data: unknown, options: unknown, callback: unknown): void {
    const isOurs = sending === this;
    if (isOurs) sending = undefined;
    const { connection } = this;
    const isCounted = connection && !connection.detached && (!isOurs || isAnswer);
    if (isCounted) connection.noteSent();
    if (
      typeof data === 'string' &&
      options === undefined &&
      callback === undefined &&
      !connection?.detached
    ) {
      this.sendText(data, isOurs && isAnswer);
    } else {
      sendBy(this.kind.base, this.webSocket, data, options, callback);
      this.writeBatch();
    }
    if (isCounted) connection.checkBacklog();
  }

  /** Sends what a handler has answered, through the socket's `send`, where the application may have put its own. */
  answer(text: string): void {
    this.sendAs(true, text);
  }

  /** Sends without counting it as application traffic. */
  sendUncounted(text: string): void {
    const { webSocket, kind } = this;
    if (webSocket.send === kind.managed.send || typeof webSocket.send !== 'function')
      this.sendText(text, false);
    else this.sendAs(false, text);
  }

  /** Sends a ping, without a payload or with the mark. */
  ping(mark?: number): void {
    const { stream, webSocket, kind } = this;
    if (mark !== undefined) kind.base.ping.call(webSocket, Buffer.of(mark));
    else if (stream && kind.output?.takesPing(webSocket as WsInternals, stream)) stream.write(EMPTY_PING);
    else kind.base.ping.call(webSocket);
    this.writeBatch();
  }

  /** These two whatever the application has assigned to the socket under their names. */
  close(code: number, reason: string): void {
    this.kind.managed.close.call(this.webSocket, code, reason);
  }

  terminate(): void {
    this.kind.managed.terminate.call(this.webSocket);
  }

  /**
   * A pong without a payload has come, as all answers to {@link ping} are, in one piece. @returns false: it is
   * for `ws` to read, since it is a part of something else, or a listener waits for it.
   */
  takePong(): boolean {
    const { webSocket, kind } = this;
    const { _receiver: receiver } = webSocket as WsInternals;
    if (!receiver || !isBetweenFrames(receiver) || webSocket.readyState !== OPEN) return false;
    if (kind.managed.listenerCount.call(webSocket, 'pong') > 0 || isTraced(kind, webSocket)) return false;
    this.connection?.notePong();
    forgetFrame(receiver);
    return true;
  }

  /**
   * Another message is being handled: the answers to this read go out together, in one system call. The batch ends with
   * the promises of this turn, or with whatever the application sends itself.
   */
  openBatch(): void {
    if (this.batched !== NO_BATCH || !this.stream) return;
    this.batched = 0;
    openBatches.push(this);
    // The answers come in microtasks; the tick that the last of them leaves to is after all of those.
    if (openBatches.length === 1) queueMicrotask(leaveBatchesToNextTick);
  }

  closeBatch(): void {
    this.writeBatch();
    this.batched = NO_BATCH;
  }

  /** Writes the answers that are not written yet, so that nothing overtakes them. */
  writeBatch(): void {
    if (this.batched <= 0) return;
    this.batched = 0;
    unwritten.delete(this);
    this.stream?.uncork();
  }

  /** From here on messages for gateways wait, in order, until each call is matched by `release` of what it returns. */
  bufferMessages(budget: BufferBudget): BufferedMessages {
    this.buffered ??= new BufferedMessages(this, budget);
    this.buffered.hold();
    return this.buffered;
  }

  /** It is to be looked at again. */
  stir(): void {
    if (this.connection) this.connection.isCalm = false;
  }

  /** A listener of the application threw: that ends its connection, and nothing else. */
  failed(event: string, error: unknown): void {
    this.kind.sink.listenerFailed(event, error);
    this.connection?.end({ reason: 'internal' });
  }

  /** Called once the socket is closing: what it does not read any more must not keep it open. */
  noteClosing(): void {
    const { _receiver: receiver } = this.webSocket as WsInternals;
    endOnce(this.stream);
    endOnce(receiver);
    this.buffered?.lift();
  }

  /** The application's listeners have been told of the close. `hasThrown`: perhaps not all of them. */
  noteTold(args: unknown[], hasThrown: boolean): void {
    const { buffered } = this;
    if (buffered?.defer(() => this.noteTold(args, hasThrown))) return;
    this.gateway?.noteTold(this, args, hasThrown);
    this.connection?.noteTold();
  }

  private sendAs(asAnswer: boolean, text: string): void {
    sending = this;
    isAnswer = asAnswer;
    try {
      this.webSocket.send(text);
    } finally {
      sending = undefined;
    }
  }

  private sendText(text: string, mayWait: boolean): void {
    const { stream, webSocket, kind } = this;
    if (
      !stream ||
      webSocket.readyState !== OPEN ||
      !kind.output?.takesText(webSocket as WsInternals, stream)
    ) {
      kind.base.send.call(webSocket, text);
      this.writeBatch();
      return;
    }
    const frame = textFrame(text);
    if (!mayWait || this.batched === NO_BATCH || frame.length > MOST_BATCHED_BYTES) {
      stream.write(frame);
      this.writeBatch();
      return;
    }
    if (this.batched + frame.length > MOST_BATCHED_BYTES) this.writeBatch();
    if (this.batched === 0) this.beginWaiting(stream);
    this.batched += frame.length;
    stream.write(frame);
  }

  private beginWaiting(stream: Duplex): void {
    unwritten.add(this);
    stream.cork();
    if (isWatchingExit) return;
    isWatchingExit = true;
    // As on the platform, where each answer is with the kernel before the next line of the application runs.
    process.on('exit', writeAllBatches);
  }
}

function leaveBatchesToNextTick(): void {
  process.nextTick(closeBatches);
}

function closeBatches(): void {
  const open = openBatches;
  openBatches = [];
  for (const state of open) state.closeBatch();
}

function writeAllBatches(): void {
  for (const state of unwritten) state.writeBatch();
}

/** With no more arguments than there are: the class may be the application's own. */
function sendBy(
  base: WebSocketLike,
  socket: WebSocketLike,
  data: unknown,
  options: unknown,
  callback: unknown,
): void {
  if (callback !== undefined) base.send.call(socket, data, options, callback);
  else if (options !== undefined) base.send.call(socket, data, options);
  else base.send.call(socket, data);
}

/** The mark of a ping of ours, in the payload of its pong. */
function markOf(payload: unknown): number | undefined {
  return payload instanceof Uint8Array && payload.length === 1 ? payload[0] : undefined;
}

/** The platform's `emit`, as it is when this file is loaded. */
const { emit: EMIT } = EventEmitter.prototype;

/** A tracer, or the application, has put its own `emit` in place: it is to see all events. */
function isTraced({ base, managed }: SocketKind, webSocket: WebSocketLike): boolean {
  return base.emit !== EMIT || webSocket.emit !== managed.emit;
}

/** A base class that returns the given object: the private fields of the derived class are added to that. */
class Itself {
  constructor(object: object) {
    // biome-ignore lint/correctness/noConstructorReturn: this is how a private field gets onto another object
    return object;
  }
}

/**
 * Leads from a stream to the state of its socket, for clients that the application has put into a `Proxy`: a private field
 * on an object of Node's, where a property could be seen and overwritten.
 */
class StateOfStream extends Itself {
  #state: SocketState | undefined;

  static get(stream: unknown): SocketState | undefined {
    return typeof stream === 'object' && stream !== null && #state in stream ? stream.#state : undefined;
  }

  static set(stream: object, state: SocketState | undefined): void {
    if (#state in stream) stream.#state = state;
    else if (state) new StateOfStream(stream).#state = state;
  }
}

/** Nothing leads from the stream, which Node keeps for a while, to the session any more. */
export function forgetStream(stream: object): void {
  StateOfStream.set(stream, undefined);
}

/**
 * The server's own WebSocket class, with what is sent and what happens seen on the way. So liveness and admission
 * need no listener of ours, and nothing that the application does with the socket changes.
 */
export function managedWebSocketClass(base: WebSocketClass, sink: SocketErrorSink): WebSocketClass {
  const BaseWebSocket = base as new (...args: unknown[]) => WebSocketLike;

  class Managed extends BaseWebSocket implements ManagedWebSocket {
    readonly #state: SocketState;

    constructor(...args: unknown[]) {
      super(...args);
      // Asks Node to watch the promises of asynchronous listeners, which would otherwise end the process.
      (EventEmitter as unknown as (this: object, options: object) => void).call(this, WATCHED);
      this.#state = new SocketState(this, kind);
    }

    /** Undefined while a class of the application's own is being constructed. */
    get [STATE](): SocketState {
      if (#state in this) return this.#state;
      return StateOfStream.get((this as WsInternals)._socket) as SocketState;
    }

    get [CONNECTION](): Connection | undefined {
      return this[STATE]?.connection;
    }

    [EventEmitter.captureRejectionSymbol](error: unknown, event: string): void {
      this[STATE]?.failed(event, error);
    }

    override get bufferedAmount(): number {
      this[STATE]?.writeBatch();
      return super.bufferedAmount;
    }

    override send(data: unknown, options?: unknown, callback?: unknown): void {
      const state = this[STATE];
      if (state) state.send(data, options, callback);
      else sendBy(kind.base, this, data, options, callback);
    }

    override ping(...args: Parameters<WebSocketLike['ping']>): void {
      super.ping(...args);
      this[STATE]?.writeBatch();
    }

    override pong(...args: Parameters<WebSocketLike['pong']>): void {
      super.pong(...args);
      this[STATE]?.writeBatch();
    }

    override pause(): void {
      this[STATE]?.stir();
      super.pause();
    }

    override terminate(): void {
      const state = this[STATE];
      state?.stir();
      // What was sent before is on its way, as it would be without us.
      state?.writeBatch();
      super.terminate();
      state?.noteClosing();
    }

    override close(code?: number, reason?: string): void {
      const state = this[STATE];
      state?.stir();
      super.close(code, reason);
      state?.writeBatch();
      state?.noteClosing();
    }

    override emit(event: string, ...args: unknown[]): boolean {
      const state = this[STATE];
      if (!state) return super.emit(event, ...args);
      const { connection } = state;
      switch (event) {
        case 'open':
          // At the handshake, before anybody can listen.
          if (super.listenerCount('open') === 0 && !isTraced(kind, this)) return false;
          break;
        case 'message':
          // Refused, or of a connection that has ended: the application must not see it.
          if (!connection || connection.detached) return false;
          connection.noteReceived();
          state.buffered?.beginMessage();
          break;
        case 'pong':
          connection?.notePong(markOf(args[0]));
          forgetFrame((this as WsInternals)._receiver);
          if (super.listenerCount('pong') === 0 && !isTraced(kind, this)) return false;
          break;
        case 'ping':
          connection?.heard();
          // It has been answered: who pings and does not read the pongs fills our memory as anybody else does.
          connection?.checkBacklog();
          break;
        case 'close':
          return this.#emitClose(state, args);
        case 'error':
          sink.peerFailed(args[0]);
          if (super.listenerCount('error') === 0) return false;
          break;
        case 'exception':
          // Nest 11's filters emit what they have to say to a client, which `ws` tells nobody; those of 12 send it.
          if (super.listenerCount('exception') > 0 || this.readyState !== OPEN) break;
          this.send(JSON.stringify({ event, data: args[0] }));
          return true;
      }
      try {
        return super.emit(event, ...args);
      } catch (error) {
        state.failed(event, error);
        return true;
      }
    }

    #emitClose(state: SocketState, args: unknown[]): boolean {
      const { connection, buffered } = state;
      const isOver = this.readyState === CLOSED;
      if (isOver && connection) {
        // What the peer said before it left is still handled; not what came before an end by us.
        buffered?.noteClosed(!connection.detached);
        connection.noteClosed(Number(args[0]), String(args[1]));
      }
      let wasHeard = true;
      let hasThrown = false;
      try {
        wasHeard = super.emit('close', ...args);
      } catch (error) {
        hasThrown = true;
        state.failed('close', error);
      }
      if (isOver) state.noteTold(args, hasThrown);
      return wasHeard;
    }
  }

  // As on the platform: of the class that the application knows, and enumerable as there.
  Object.defineProperty(Managed, 'name', { value: base.name });
  Object.defineProperty(Managed.prototype, 'constructor', {
    value: base,
    writable: true,
    configurable: true,
  });
  for (const name of ['bufferedAmount', 'emit']) {
    Object.defineProperty(Managed.prototype, name, { enumerable: true });
  }
  const isPlain = Object.getPrototypeOf(base) === EventEmitter;
  const kind: SocketKind = {
    base: base.prototype as WebSocketLike,
    managed: Managed.prototype,
    sink,
    output: isPlain ? new DirectOutput(base.prototype) : undefined,
    bufferedAmount: bufferedAmountOf(base.prototype as object),
  };
  return Managed;
}

/** The class's own getter, wherever in its ancestry it is. */
function bufferedAmountOf(prototype: object): SocketKind['bufferedAmount'] {
  for (let owner = prototype; owner; owner = Object.getPrototypeOf(owner) as object) {
    const get = Object.getOwnPropertyDescriptor(owner, 'bufferedAmount')?.get as (() => number) | undefined;
    if (get) return (webSocket) => get.call(webSocket);
  }
  return (webSocket) => webSocket.bufferedAmount;
}
