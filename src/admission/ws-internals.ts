import type { Duplex, Writable } from 'node:stream';

/**
 * The parts of a `ws` WebSocket that `ws` keeps private, and all that this package does with them. Each of them may be
 * missing or called otherwise in another version: then the caller takes the way through the public methods.
 */
export interface WsInternals {
  readonly _receiver?: Receiver;
  readonly _sender?: Sender;
  readonly _socket?: Duplex | null;
  readonly _extensions?: Readonly<Record<string, Inflater | undefined>>;
}

/** Reads frames. */
export type Receiver = Writable & {
  readonly _buffers?: readonly unknown[] | { length: 0 };
  _mask?: unknown;
  readonly _state?: number;
  readonly _bufferedBytes?: number;
  readonly _errored?: boolean;
  readonly _maxPayload?: number;
};

type Method = (this: unknown, ...args: never[]) => unknown;

/** Writes frames. */
interface Sender {
  readonly send?: Method;
  readonly ping?: Method;
  readonly dispatch?: Method;
  readonly sendFrame?: Method;
  readonly constructor: { readonly frame?: Method };
  /** 0: nothing is being compressed or read from a Blob. */
  readonly _state?: number;
  /** False between the fragments of a message. */
  readonly _firstFragment?: boolean;
  readonly _socket?: unknown;
}

export type InflateCallback = (error: unknown, data?: Buffer) => void;
/** The permessage-deflate extension of one socket. */
export interface Inflater {
  decompress?: (data: Buffer, isLast: boolean, callback: InflateCallback) => void;
}

/** All that came before has been read, and the next byte begins a frame. */
export function isBetweenFrames({ _state, _bufferedBytes, _errored }: Receiver): boolean {
  return _state === 0 && _bufferedBytes === 0 && _errored === false;
}

/**
 * After a frame, `ws` keeps its mask (until 8.22), which keeps what came with it, and room for seventeen pieces of the
 * next: 320 bytes of a connection that says nothing but its pongs. Neither is of use between two frames.
 */
export function forgetFrame(receiver: Receiver | undefined): void {
  if (!receiver || !Array.isArray(receiver._buffers) || receiver._buffers.length > 0) return;
  // Nothing is lost by it: it is empty.
  receiver._buffers.length = 0;
  receiver._mask = undefined;
}

/** What a frame passes on its way out of an untouched `ws`, and the code by which each of these is recognised. */
const WAY_OUT = {
  send: '_firstFragment',
  ping: 'sendFrame(',
  dispatch: 'sendFrame(',
  sendFrame: '_socket.write(',
} as const;
const FRAME = 'allocUnsafe(';

/**
 * Whether frames may be written to the stream directly. They may where `ws` itself would do nothing else: where its methods
 * are its own, recognised by their source, and not those of a tracer that has put its wrapper in their place. The check
 * before each frame compares identities only, so a tracer that comes later is seen too.
 */
export class DirectOutput {
  private readonly wsSend: unknown;
  private readonly wsPing: unknown;
  private sender: Pick<Sender, keyof typeof WAY_OUT> | undefined;
  private senderClass: Sender['constructor'] | undefined;
  private frame: Method | undefined;
  /** Is not examined again for each socket. */
  private rejected: unknown;

  constructor(private readonly prototype: { readonly send?: unknown; readonly ping?: unknown }) {
    this.wsSend = isOwnCode(prototype.send, '_sender.send(') ? prototype.send : undefined;
    this.wsPing = isOwnCode(prototype.ping, '_sender.ping(') ? prototype.ping : undefined;
  }

  /** Examines the class of the socket's sender, if that is still to be done. @returns whether it is untouched. */
  knows({ _sender: sender }: WsInternals): boolean {
    if (this.sender) return true;
    if (!sender || sender.sendFrame === this.rejected) return false;
    const prototype = Object.getPrototypeOf(sender) as Sender;
    const names = Object.keys(WAY_OUT) as (keyof typeof WAY_OUT)[];
    const { frame } = sender.constructor;
    if (names.every((name) => isOwnCode(prototype[name], WAY_OUT[name])) && isOwnCode(frame, FRAME)) {
      const { send, ping, dispatch, sendFrame } = prototype;
      this.sender = { send, ping, dispatch, sendFrame };
      this.senderClass = sender.constructor;
      this.frame = frame as Method;
      return true;
    }
    this.rejected = sender.sendFrame;
    return false;
  }

  /** Whether a whole text message may be written to the stream now. */
  takesText(webSocket: WsInternals, stream: Duplex): boolean {
    const { wsSend } = this;
    return (
      wsSend !== undefined &&
      this.prototype.send === wsSend &&
      this.isIdle(webSocket._sender, stream) &&
      webSocket._sender?._firstFragment === true
    );
  }

  /** Whether a ping may be written to the stream now. It may come between the fragments of a message. */
  takesPing(webSocket: WsInternals, stream: Duplex): boolean {
    const { wsPing } = this;
    return (
      wsPing !== undefined &&
      this.prototype.ping === wsPing &&
      this.isIdle(webSocket._sender, stream) &&
      webSocket._sender?.ping === this.sender?.ping
    );
  }

  private isIdle(sender: Sender | undefined, stream: Duplex): boolean {
    const known = this.sender;
    return (
      known !== undefined &&
      sender !== undefined &&
      sender._state === 0 &&
      sender._socket === stream &&
      sender.send === known.send &&
      sender.dispatch === known.dispatch &&
      sender.sendFrame === known.sendFrame &&
      this.senderClass?.frame === this.frame
    );
  }
}

function isOwnCode(method: unknown, mark: string): boolean {
  return typeof method === 'function' && Function.prototype.toString.call(method).includes(mark);
}

/**
 * To be sure, `ws` ends the streams of a socket again as it closes. Node makes an error of that, with its stack, that
 * nothing reads: a tenth of what a connection costs in its life.
 */
export function endOnce(stream: Writable | undefined): void {
  // Keep an existing override.
  if (stream && !Object.hasOwn(stream, 'end')) stream.end = endUnlessFinished;
}

function endUnlessFinished(this: Writable, ...args: unknown[]): Writable {
  if (args.length === 0 && this.writableFinished) return this;
  const { end } = Object.getPrototypeOf(this) as { end(this: Writable, ...args: unknown[]): Writable };
  return end.apply(this, args);
}
