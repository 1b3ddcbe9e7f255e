import type { IncomingMessage, OutgoingHttpHeaders, ServerResponse } from 'node:http';
import { Injectable } from '@nestjs/common';
import type { Subscription } from 'rxjs';
import { Clock, type TimerHandle } from '../clock/clock.js';
import { EventStream } from '../events/event-stream.js';
import { textOf } from '../events/line-limiter.js';
import type { WebSocketManagerEvent } from '../events/websocket-manager-event.js';

/** Streams of this node at one time. */
const MOST_STREAMS = 16;
/** Bytes that wait in this process for one client to read. An event above it is dropped, and counted. */
const MOST_UNSENT_BYTES = 64 * 1024;
/** A client that is above it for so long is disconnected. */
const STALLED_MS = 30_000;
/** A stream ends after so long: the client reconnects, and the guards run again. */
const STREAM_MS = 15 * 60_000;
/** A client that does not read may delay a shutdown by this much. */
const END_MS = 1_000;

/** A platform's response: Express' is Node's own, Fastify's has Node's in `raw`. */
export interface PlatformResponse {
  readonly raw?: ServerResponse;
  getHeaders?(): OutgoingHttpHeaders;
  /** Fastify: the handler writes the response itself. */
  hijack?(): unknown;
}

export interface PlatformRequest {
  readonly raw?: IncomingMessage;
}

/**
 * The server-sent events of the operator's API, with bounded memory.
 *
 * They are written to the platform's raw response: Nest's `@Sse()` keeps what a client does not read in a queue of its
 * own, which has no bound in the lowest versions of Nest that are supported.
 */
@Injectable()
export class OperatorStreams {
  private readonly streams = new Set<object>();

  constructor(
    private readonly clock: Clock,
    private readonly events: EventStream,
  ) {}

  get isFull(): boolean {
    return this.streams.size >= MOST_STREAMS;
  }

  /** Seconds after which one more may be accepted; for `Retry-After`. */
  get retryAfterSeconds(): number {
    return STALLED_MS / 1_000;
  }

  /** Writes everything that happens to the response, until the client, the node or the time ends it. */
  start(request: PlatformRequest, response: PlatformResponse): void {
    const raw = response.raw ?? (response as ServerResponse);
    const { method, httpVersionMajor } = request.raw ?? (request as IncomingMessage);
    response.hijack?.();
    this.streams.add(raw);
    const stream = new EventStreamResponse(this.clock, raw);
    raw.once('close', () => {
      this.streams.delete(raw);
      stream.stop();
    });
    // Not before interceptors, which may set headers after the handler has returned.
    setImmediate(() => {
      if (raw.headersSent || raw.writableEnded || raw.destroyed) {
        this.streams.delete(raw);
        return;
      }
      try {
        raw.writeHead(200, headersFor(response, httpVersionMajor > 1));
        if (method === 'HEAD') raw.end();
        else stream.start(this.events, httpVersionMajor > 1);
      } catch (error) {
        // A header that Node refuses; Fastify takes any.
        this.events.report({ type: 'hook_failed', hook: 'GET api/events', error });
        raw.destroy();
      }
    });
  }
}

/** One client's stream. */
class EventStreamResponse {
  private lastId = 0;
  private isBlocked = false;
  /** Bytes written since the response said that it is full. */
  private unsentBytes = 0;
  private dropped = 0;
  private subscription: Subscription | undefined;
  private stalledTimer: TimerHandle | undefined;
  private endTimer: TimerHandle | undefined;

  constructor(
    private readonly clock: Clock,
    private readonly response: ServerResponse,
  ) {}

  start({ events$ }: EventStream, isHttp2: boolean): void {
    const { response } = this;
    if (!isHttp2) {
      response.socket?.setNoDelay(true);
      response.socket?.setKeepAlive(true);
      response.socket?.setTimeout(0);
    }
    response.on('drain', () => this.onDrain());
    // A write to a client that has just gone; its `close` follows.
    response.on('error', () => {});
    response.flushHeaders();
    response.write('\n');
    this.endTimer = this.clock.setTimeout(() => this.end(), STREAM_MS);
    this.subscription = events$.subscribe({
      next: (event) => this.send(event),
      complete: () => this.end(),
    });
  }

  /** The client has gone. */
  stop(): void {
    this.subscription?.unsubscribe();
    this.clock.clearTimeout(this.stalledTimer);
    this.clock.clearTimeout(this.endTimer);
  }

  private send(event: WebSocketManagerEvent): void {
    if (this.unsentBytes >= MOST_UNSENT_BYTES) this.drop();
    else this.write(event.type, serializable(event));
  }

  private write(type: string, data: object): void {
    const { response } = this;
    if (response.destroyed || response.writableEnded) return;
    const text = `event: ${type}\nid: ${++this.lastId}\ndata: ${JSON.stringify(data)}\n\n`;
    if (!response.write(text)) this.isBlocked = true;
    if (this.isBlocked) this.unsentBytes += Buffer.byteLength(text);
  }

  private drop(): void {
    this.dropped++;
    this.stalledTimer ??= this.clock.setTimeout(() => this.response.destroy(), STALLED_MS);
  }

  private onDrain(): void {
    this.isBlocked = false;
    this.unsentBytes = 0;
    this.clock.clearTimeout(this.stalledTimer);
    this.stalledTimer = undefined;
    if (this.dropped === 0) return;
    const { dropped } = this;
    this.dropped = 0;
    this.write('dropped', { type: 'dropped', count: dropped, at: this.clock.wallNow() });
  }

  private end(): void {
    this.stop();
    this.response.end();
    this.endTimer = this.clock.setTimeout(() => this.response.destroy(), END_MS);
  }
}

/** Those of Nest's `@Sse()`, and what middleware, guards and plugins have set. */
function headersFor(response: PlatformResponse, isHttp2: boolean): OutgoingHttpHeaders {
  return {
    ...response.getHeaders?.(),
    'content-type': 'text/event-stream',
    // A hop-by-hop header, forbidden in HTTP/2.
    ...(isHttp2 ? {} : { connection: 'keep-alive' }),
    'cache-control': 'private, no-cache, no-store, must-revalidate, max-age=0, no-transform',
    pragma: 'no-cache',
    expires: '0',
    'x-accel-buffering': 'no',
  };
}

/** Errors have no fields of their own that JSON would show. */
function serializable(event: WebSocketManagerEvent): object {
  if (!('error' in event)) return event;
  return { ...event, error: textOf(event.error) };
}
