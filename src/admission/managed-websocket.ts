import { EventEmitter } from 'node:events';
import type { Duplex, Writable } from 'node:stream';
import type { Connection } from '../manager/connection.js';
import type { GatewayBinding, Streams } from './message-dispatcher.js';
import { textFrame } from './text-frame.js';

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
  send(data: unknown, ...rest: unknown[]): void;
  ping(): void;
  close(code?: number, reason?: string): void;
  terminate(): void;
  pause(): void;
  resume(): void;
  on(event: string, listener: (...args: never[]) => void): unknown;
  emit(event: string, ...args: unknown[]): boolean;
  listenerCount(event: string): number;
}

type WebSocketClass = new (...args: never[]) => WebSocketLike;

/** Where a socket carries its connection. A symbol of the registry: two copies of this package agree on it. */
export const CONNECTION: unique symbol = Symbol.for('nestjs-websocket-manager:connection');

/** A socket of a server whose door we keep. */
export interface ManagedWebSocket extends WebSocketLike {
  [CONNECTION]?: Connection | undefined;
  /** Where its messages go. */
  gateway: GatewayBinding | undefined;
  /** Answers that have not come to their end. */
  streams: Streams | undefined;
  /** The socket's own stream: what needs nothing of `ws` but a frame around it goes there at once. */
  writeTo(stream: Duplex): void;
  /** Sends without counting it as application traffic. */
  sendUncounted(data: string): void;
  /** A ping without a payload, in one write: `ws` makes one of a header and another of nothing. For an open socket. */
  askWhoIsThere(): void;
  /**
   * A pong without a payload has come, as all answers to {@link askWhoIsThere} are, in one piece. @returns false: it is
   * for `ws` to read, since it is a part of something else, or somebody listens.
   */
  takePong(): boolean;
  /** From here on messages wait, in order. Everything else about the socket goes on. */
  holdMessages(): void;
  /**
   * Hands on what has waited, and whatever comes.
   * @param isWanted false: what has waited is for nobody
   */
  releaseMessages(isWanted?: boolean): void;
}

/** Set while a text is sent that has nobody to wait for. */
let isAlone = false;

/** Sends a text that goes out by itself: nothing else is expected in this turn that could go with it. */
export function sendAlone(socket: WebSocketLike, text: string): void {
  isAlone = true;
  try {
    socket.send(text);
  } finally {
    isAlone = false;
  }
}

/** The connection of a client, whatever it is: undefined for one that no manager holds. */
export function connectionOf(client: unknown): Connection | undefined {
  if (typeof client !== 'object' || client === null) return undefined;
  return (client as ManagedWebSocket)[CONNECTION];
}

/** What happens on sockets that no connection can speak for. */
export interface SocketErrorSink {
  /** A listener of the application threw. */
  listenerFailed(event: string, error: unknown): void;
  /** The peer broke the protocol, or the network broke the connection. */
  peerFailed(error: unknown): void;
}

/** One for all sockets. */
const WATCHED = { captureRejections: true };

/** So many messages may wait; beyond that the socket is not read, and the peer has to wait. */
const MOST_HELD_MESSAGES = 16;

/**
 * The server's own WebSocket class, with what is sent and what happens seen on the way. So liveness and admission
 * need no listener of ours, and nothing that the application does with the socket changes.
 */
export function managedWebSocketClass(base: WebSocketClass, sink: SocketErrorSink): WebSocketClass {
  const BaseWebSocket = base as new (...args: unknown[]) => WebSocketLike;
  // A class of the application's own may do something else to what it sends.
  const isPlain = Object.getPrototypeOf(base) === EventEmitter;

  return class extends BaseWebSocket implements ManagedWebSocket {
    [CONNECTION]: Connection | undefined = undefined;
    gateway: GatewayBinding | undefined = undefined;
    streams: Streams | undefined = undefined;
    /** Messages that wait, and the close of the peer that sent them and left. */
    private held: ['message' | 'close', unknown[]][] | undefined = undefined;
    /** Set while every message before went out whole, so that none can come between the parts of another. */
    private stream: Duplex | undefined = undefined;

    constructor(...args: unknown[]) {
      super(...args);
      // Asks Node to watch the promises of asynchronous listeners, which would otherwise end the process.
      (EventEmitter as unknown as (this: object, options: object) => void).call(this, WATCHED);
    }

    [EventEmitter.captureRejectionSymbol](error: unknown, event: string): void {
      sink.listenerFailed(event, error);
      this[CONNECTION]?.end({ reason: 'internal' });
    }

    override send(data: unknown, ...rest: unknown[]): void {
      const connection = this[CONNECTION];
      if (!connection || connection.detached) {
        super.send(data, ...rest);
        return;
      }
      connection.noteSent();
      if (rest.length === 0 && typeof data === 'string') {
        this.sendUncounted(data);
      } else {
        if (!isWhole(data, rest[0])) this.stream = undefined;
        super.send(data, ...rest);
      }
      connection.checkBacklog();
    }

    sendUncounted(data: string): void {
      if (!this.stream || this.readyState !== OPEN) {
        super.send(data);
        return;
      }
      if (this.stream.writableCorked === 0 && !isAlone) {
        // What else this turn has to say goes out with it, in one system call.
        this.stream.cork();
        process.nextTick(uncork, this.stream);
      }
      this.stream.write(textFrame(data));
    }

    askWhoIsThere(): void {
      if (this.stream) this.stream.write(EMPTY_PING);
      else super.ping();
    }

    takePong(): boolean {
      const receiver = (this as WithReceiver)._receiver;
      if (!receiver || !isBetweenFrames(receiver) || this.readyState !== OPEN) return false;
      if (this.listenerCount('pong') > 0) return false;
      this[CONNECTION]?.notePong();
      forgetFrame(receiver);
      return true;
    }

    override pause(): void {
      this.stir();
      super.pause();
    }

    override terminate(): void {
      this.stir();
      // What was sent before is on its way, as it would be without us.
      if (this.stream) uncork(this.stream);
      super.terminate();
    }

    /** It is to be looked at again. */
    private stir(): void {
      const connection = this[CONNECTION];
      if (connection) connection.isCalm = false;
    }

    writeTo(stream: Duplex): void {
      if (isPlain && this.extensions === '') this.stream = stream;
    }

    override close(code?: number, reason?: string): void {
      this.stir();
      super.close(code, reason);
      endOnce(this.stream);
      endOnce((this as WithReceiver)._receiver);
      // The peer's answer has to be read, however many messages wait before it.
      if (this.isPaused) this.resume();
    }

    holdMessages(): void {
      this.held ??= [];
    }

    releaseMessages(isWanted = true): void {
      const held = this.held ?? [];
      this.held = undefined;
      // Who has said something and left has said it; whom we have ended meanwhile is not heard.
      const hasLeft = held.at(-1)?.[0] === 'close';
      for (const [event, args] of held) {
        // In a turn of its own, as it would have been read: Nest takes some promises to get a message to its handler.
        if (event === 'close') setImmediate(() => this.tellClose(args));
        else if (isWanted && (hasLeft || !this[CONNECTION]?.detached)) this.tell('message', args);
      }
      // An application that does not read for reasons of its own goes on not reading.
      if (held.length >= MOST_HELD_MESSAGES && this.isPaused) this.resume();
    }

    override emit(event: string, ...args: unknown[]): boolean {
      const connection = this[CONNECTION];
      switch (event) {
        case 'open':
          // At the handshake, before anybody can listen.
          if (this.listenerCount('open') === 0) return false;
          break;
        case 'message':
          // Refused, or no longer anybody's: the application must not see it.
          if (!connection || connection.detached) return false;
          connection.noteReceived();
          if (this.held) {
            this.held.push(['message', args]);
            if (this.held.length >= MOST_HELD_MESSAGES) this.pause();
            return true;
          }
          break;
        case 'pong':
          connection?.notePong();
          forgetFrame((this as WithReceiver)._receiver);
          if (this.listenerCount('pong') === 0) return false;
          break;
        case 'ping':
          connection?.heard();
          // It has been answered: who pings and does not read the pongs fills our memory as anybody else does.
          connection?.checkBacklog();
          break;
        case 'close': {
          const isLeaving = connection !== undefined && !connection.detached;
          const hasSaidMore = isLeaving && this.held !== undefined && this.held.length > 0;
          connection?.noteClosed(Number(args[0]), String(args[1]));
          // The slot is free; the gateways hear of the close after what was said before it.
          if (hasSaidMore) this.held?.push(['close', args]);
          return hasSaidMore || this.tellClose(args);
        }
        case 'error':
          sink.peerFailed(args[0]);
          if (this.listenerCount('error') === 0) return false;
          break;
        case 'exception':
          // Nest 11's filters emit what they have to say to a client, which `ws` tells nobody; those of 12 send it.
          if (this.listenerCount('exception') > 0 || this.readyState !== OPEN) break;
          this.send(JSON.stringify({ event, data: args[0] }));
          return true;
      }
      return this.tell(event, args);
    }

    private tellClose(args: unknown[]): boolean {
      const wasHeard = this.tell('close', args);
      // Not a listener: it would be a second one on every socket, and the list of two that it takes.
      this.gateway?.socketClosed(this, args, (error) => sink.listenerFailed('close', error));
      this[CONNECTION]?.noteTold();
      return wasHeard;
    }

    /** Calls the application's listeners; what they throw ends their connection, and nothing else. */
    private tell(event: string, args: unknown[]): boolean {
      try {
        return super.emit(event, ...args);
      } catch (error) {
        sink.listenerFailed(event, error);
        this[CONNECTION]?.end({ reason: 'internal' });
        return true;
      }
    }
  };
}

/** What `ws` reads frames with. Private to it: where it is made otherwise, what we spare is not spared. */
interface WithReceiver {
  readonly _receiver?: Receiver;
}
type Receiver = Writable & {
  readonly _buffers?: readonly unknown[] | { length: 0 };
  _mask?: unknown;
  readonly _state?: number;
  readonly _bufferedBytes?: number;
  readonly _errored?: boolean;
};

/** All that came before has been read, and the next byte begins a frame. */
function isBetweenFrames({ _state, _bufferedBytes, _errored }: Receiver): boolean {
  return _state === 0 && _bufferedBytes === 0 && _errored === false;
}

/**
 * After a frame, `ws` keeps its mask (until 8.22), which keeps what came with it, and room for seventeen pieces of the
 * next: 320 bytes of a connection that says nothing but its pongs. Neither is of use between two frames.
 */
function forgetFrame(receiver: Receiver | undefined): void {
  if (!receiver || !Array.isArray(receiver._buffers) || receiver._buffers.length > 0) return;
  // Nothing is lost by it: it is empty.
  receiver._buffers.length = 0;
  receiver._mask = undefined;
}

/** FIN and the opcode; no mask, no payload. https://www.rfc-editor.org/rfc/rfc6455#section-5.5.2 */
const EMPTY_PING = Buffer.from([0x89, 0]);

/** `readyState` of an open socket, and of one that is gone. */
export const OPEN = 1;
export const CLOSED = 3;

function uncork(stream: Duplex): void {
  stream.uncork();
}

/**
 * To be sure, `ws` ends the streams of a socket again as it closes. Node makes an error of that, with its stack, for
 * nobody to get: a tenth of what a connection costs in its life.
 */
function endOnce(stream: Writable | undefined): void {
  // Whoever has put one there has a reason for it.
  if (stream && !Object.hasOwn(stream, 'end')) stream.end = endUnlessFinished;
}

function endUnlessFinished(this: Writable, ...args: unknown[]): Writable {
  if (args.length === 0 && this.writableFinished) return this;
  const { end } = Object.getPrototypeOf(this) as { end(this: Writable, ...args: unknown[]): Writable };
  return end.apply(this, args);
}

/** Whether `ws` writes the message at once and in one piece, whatever comes after it. */
function isWhole(data: unknown, options: unknown): boolean {
  const isBinary = ArrayBuffer.isView(data) || data instanceof ArrayBuffer;
  return (typeof data === 'string' || isBinary) && (options === undefined || typeof options === 'function');
}
