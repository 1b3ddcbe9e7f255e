import { STATUS_CODES } from 'node:http';
import type { Duplex } from 'node:stream';
import { Injectable } from '@nestjs/common';
import { Clock } from '../clock/clock.js';
import {
  CLOSE_REASONS,
  closingFrame,
  type DisconnectReason,
  type RejectionReason,
} from '../events/close-reason.js';
import { EventStream } from '../events/event-stream.js';
import type { ManagedWebSocket } from './managed-websocket.js';

/** How long a refused browser is held before it is closed: drawn between these, so that loops stay slow. */
const HOLD_LEAST_MS = 200;
const HOLD_MOST_MS = 1_000;
/** Sockets held so at one time, on this node and for one user or address; beyond it, refusals go by HTTP. */
const MOST_HELD = 1_000;
const MOST_HELD_OF_ONE = 20;
/** What a refused client may take to close its side. */
const LINGER_MS = 2_000;

/** Tells newcomers that they cannot come in: in HTTP before the handshake, or with a close code after it. */
@Injectable()
export class Refusals {
  private readonly heldBy = new Map<string, number>();
  /** Those that are held, and when they are gone. */
  private readonly closings = new Map<ManagedWebSocket, Promise<void>>();

  constructor(
    private readonly clock: Clock,
    private readonly events: EventStream,
  ) {}

  /** Refused sockets that are held at the moment. */
  get held(): number {
    return this.closings.size;
  }

  /** Resolves when those that are held at this moment are gone. */
  async whenHeldAreGone(): Promise<void> {
    await Promise.all(this.closings.values());
  }

  /** Whether one more may be accepted only to be closed. `owner`: the user, or the address of a stranger. */
  mayHold(owner: string): boolean {
    return this.closings.size < MOST_HELD && (this.heldBy.get(owner) ?? 0) < MOST_HELD_OF_ONE;
  }

  /** Closes an accepted socket with the reason's code, after a short random while. */
  hold(owner: string, webSocket: ManagedWebSocket, reason: DisconnectReason, retryAfterMs?: number): void {
    const { code } = CLOSE_REASONS[reason];
    this.count(owner, 1);
    const delayMs = HOLD_LEAST_MS + Math.random() * (HOLD_MOST_MS - HOLD_LEAST_MS);
    const close = () => {
      timer = this.clock.setTimeout(() => webSocket.terminate(), LINGER_MS);
      try {
        webSocket.send(closingFrame(code, reason, retryAfterMs));
        webSocket.close(code, reason);
      } catch (error) {
        // A WebSocket class of the application's own: the socket is terminated, and that is all.
        this.events.report({ type: 'hook_failed', hook: 'WebSocket', error });
      }
    };
    let timer = this.clock.setTimeout(close, delayMs);
    const closing = new Promise<void>((resolve) => void webSocket.on('close', resolve)).then(() => {
      this.clock.clearTimeout(timer);
      this.closings.delete(webSocket);
      this.count(owner, -1);
    });
    this.closings.set(webSocket, closing);
  }

  /** The server goes: nobody is held any longer. */
  terminateHeld(): void {
    for (const webSocket of this.closings.keys()) webSocket.terminate();
  }

  /** Answers an upgrade request with a status and a JSON body, and sees to it that the socket goes. */
  answer(socket: Duplex, reason: RejectionReason, retryAfterMs?: number): void {
    const { httpStatus, text } = CLOSE_REASONS[reason];
    this.answerWith(socket, httpStatus, reason, text, retryAfterMs);
  }

  /** The same, for an upgrade that nobody owns. */
  answerNotFound(socket: Duplex): void {
    this.answerWith(socket, 404, 'not_found', 'No WebSocket here');
  }

  private answerWith(
    socket: Duplex,
    statusCode: number,
    reason: string,
    message: string,
    retryAfterMs?: number,
  ): void {
    if (!socket.writable) {
      socket.destroy();
      return;
    }
    const error = STATUS_CODES[statusCode] ?? '';
    const body = JSON.stringify({
      statusCode,
      error,
      reason,
      message,
      ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
    });
    const head = [
      `HTTP/1.1 ${statusCode} ${error}`,
      'Connection: close',
      'Content-Type: application/json; charset=utf-8',
      `Content-Length: ${Buffer.byteLength(body)}`,
      ...(retryAfterMs === undefined ? [] : [`Retry-After: ${Math.ceil(retryAfterMs / 1_000)}`]),
    ];
    const timer = this.clock.setTimeout(() => socket.destroy(), LINGER_MS);
    socket.once('close', () => this.clock.clearTimeout(timer));
    socket.once('finish', () => socket.destroy());
    socket.end(`${head.join('\r\n')}\r\n\r\n${body}`);
  }

  private count(owner: string, by: 1 | -1): void {
    const held = (this.heldBy.get(owner) ?? 0) + by;
    if (held > 0) this.heldBy.set(owner, held);
    else this.heldBy.delete(owner);
  }
}
