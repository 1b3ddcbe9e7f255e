import type { IncomingMessage, Server } from 'node:http';
import type { Duplex } from 'node:stream';
import { Inject, Injectable, type WebSocketAdapter } from '@nestjs/common';
import { ApplicationConfig, HttpAdapterHost } from '@nestjs/core';
import { WsAdapter } from '@nestjs/platform-ws';
import type { MessageMappingProperties } from '@nestjs/websockets';
import { catchError, EMPTY, finalize, type Observable } from 'rxjs';
import { Clock } from '../clock/clock.js';
import { settleWithin, whenSettled } from '../clock/deadline.js';
import { EventStream } from '../events/event-stream.js';
import type { Connection } from '../manager/connection.js';
import { RESOLVED_OPTIONS, type ResolvedOptions } from '../options/websocket-manager-options.interface.js';
import { BufferBudget } from './buffered-messages.js';
import { Door, type WebSocketServerLike } from './door.js';
import { GatewayHooks } from './gateway-hooks.js';
import { connectionOf, type ManagedWebSocket, STATE } from './managed-websocket.js';
import { type GatewayRoutes, MessageDispatcher, onDisconnect } from './message-dispatcher.js';
import { Refusals } from './refusal.js';
import { settleSocketClasses } from './websocket-transport.js';

/** `ws` would keep a half-closed socket for 30 s. */
const CLOSE_TIMEOUT_MS = 5_000;

interface PathOwner extends WebSocketServerLike {
  path?: string;
  removeAllListeners(event: string): unknown;
}

/** What Nest 11 and 12 both keep in a WsAdapter, by port. */
interface WsAdapterRegistries {
  readonly httpServersRegistry: ReadonlyMap<number, Server>;
  readonly wsServersRegistry: ReadonlyMap<number, readonly PathOwner[]>;
  readonly messageParser: (data: unknown) => { event?: unknown; data?: unknown } | undefined;
}

type UpgradeListener = (request: IncomingMessage, socket: Duplex, head: Buffer) => void;
type Transform = (data: unknown) => Observable<unknown>;

/**
 * Nest's WebSocket adapter with our door in front of it. It is installed by the import of the module alone, and
 * wraps whatever WsAdapter the application sets with `useWebSocketAdapter`, or the stock one.
 */
@Injectable()
export class WebSocketManagerAdapter implements WebSocketAdapter {
  private inner: WsAdapter | undefined;
  private hasServers = false;
  /** Servers of request-scoped gateways: their `handleConnection` is called only after they are made. */
  private readonly connectingLater = new WeakSet<object>();
  private readonly dispatcher: MessageDispatcher;
  /** Of messages that wait for `handleConnection`. */
  private readonly bufferBudget: BufferBudget;
  /** The gateway whose handlers are bound at the moment. */
  private binding: GatewayRoutes | undefined;
  private forceCloseConnectionsValue: boolean | undefined;
  /** The last `Host` that was found valid. */
  private validHost: string | undefined;
  /** HTTP servers whose upgrades we hand out. */
  private readonly upgradeListeners = new Map<Server, UpgradeListener>();

  constructor(
    private readonly door: Door,
    private readonly hooks: GatewayHooks,
    private readonly refusals: Refusals,
    private readonly clock: Clock,
    private readonly events: EventStream,
    private readonly httpAdapterHost: HttpAdapterHost,
    @Inject(RESOLVED_OPTIONS) private readonly options: ResolvedOptions,
  ) {
    this.dispatcher = new MessageDispatcher(
      (data) => registriesOf(this.innerAdapter()).messageParser(data),
      (hook, error) => this.events.report({ type: 'hook_failed', hook, error }),
      () => isParserLogged(this.innerAdapter()),
    );
    this.bufferBudget = new BufferBudget(options.limits.maxPayloadBytes);
  }

  /** Makes this the application's adapter, now and after `useWebSocketAdapter`. */
  install(config: ApplicationConfig): void {
    config.setIoAdapter(this);
    config.setIoAdapter = (adapter) => this.wrap(adapter);
  }

  /** For Nest, which sets it before the first server is created. */
  set forceCloseConnections(value: boolean) {
    this.forceCloseConnectionsValue = value;
    if (this.inner) this.inner.forceCloseConnections = value;
  }

  create(port: number, options: Record<string, unknown> = {}): unknown {
    if (!this.hasServers) {
      this.hooks.guardAll();
      settleSocketClasses();
    }
    const inner = this.innerAdapter();
    this.hasServers = true;
    const http = port === 0 ? this.httpServer : undefined;
    const before = http?.listeners('upgrade') ?? [];
    const { maxPayloadBytes } = this.options.limits;
    const server = inner.create(port, {
      maxPayload: maxPayloadBytes,
      closeTimeout: CLOSE_TIMEOUT_MS,
      ...options,
    });
    const isNew = this.door.guard(server as WebSocketServerLike);
    // The stock adapter logs every protocol error of every client; ours are seen by the door. A server that is guarded
    // already has the listeners of a gateway.
    if (isNew && inner.constructor === WsAdapter) (server as PathOwner).removeAllListeners('connection');
    if (this.hooks.connectsLater(port, options.path)) this.connectingLater.add(server as object);
    const shared = registriesOf(inner).httpServersRegistry.get(port);
    if (shared) this.handOutUpgrades(port, shared, shared === http ? before : []);
    return server;
  }

  bindClientConnect(server: unknown, callback: (...args: unknown[]) => void): void {
    const routes: GatewayRoutes = {};
    const isLater = this.connectingLater.has(server as object);
    this.innerAdapter().bindClientConnect(server as never, (...args: unknown[]) => {
      if (isLater) this.hooks.expectConnected(args[0]);
      // Nest binds the handlers of this gateway within the call.
      this.binding = routes;
      callback(...args);
      this.binding = undefined;
    });
  }

  bindClientDisconnect(client: unknown, callback: (...args: unknown[]) => void): void {
    const isDone =
      !this.usesStock('bindClientDisconnect') && onDisconnect(client as ManagedWebSocket, callback);
    if (!isDone) this.bindStock(client, () => this.innerAdapter().bindClientDisconnect(client, callback));
  }

  bindMessageHandlers(client: unknown, handlers: MessageMappingProperties[], transform: Transform): void {
    const connection = connectionOf(client);
    if (connection) this.bufferUntilConnected(client as ManagedWebSocket, connection);
    if (!connection || this.usesStock('bindMessageHandlers', 'bindMessageHandler')) {
      this.bindStock(client, () => this.bindStockHandlers(client, handlers, transform));
    } else {
      this.dispatcher.bind(client as ManagedWebSocket, this.binding ?? {}, handlers);
    }
  }

  async close(server: unknown): Promise<void> {
    await this.innerAdapter().close(server);
  }

  async dispose(): Promise<void> {
    await this.inner?.dispose();
    // Who is refused is not among the clients that the platform has just terminated.
    this.refusals.terminateHeld();
    for (const [server, listener] of this.upgradeListeners) server.off('upgrade', listener);
    this.upgradeListeners.clear();
  }

  setMessageParser(parser: Parameters<WsAdapter['setMessageParser']>[0]): void {
    this.innerAdapter().setMessageParser(parser);
  }

  /** Whether messages are to go the adapter's own way: the application asks for it, or has made it its own. */
  private usesStock(...methods: (keyof WsAdapter)[]): boolean {
    const inner = this.innerAdapter();
    return (
      this.options.useStockMessageHandling ||
      methods.some((method) => inner[method] !== WsAdapter.prototype[method])
    );
  }

  private bindStockHandlers(
    client: unknown,
    handlers: MessageMappingProperties[],
    transform: Transform,
  ): void {
    const manager = connectionOf(client)?.manager;
    this.innerAdapter().bindMessageHandlers(client, handlers, (data) => {
      const answers = transform(data);
      manager?.workBegins();
      return answers.pipe(
        // On Nest 11 what gets this far would end the client's stream, and the process with it.
        catchError((error: unknown) => {
          this.events.report({ type: 'hook_failed', hook: 'message handler', error });
          return EMPTY;
        }),
        finalize(() => manager?.workEnds()),
      );
    });
  }

  private wrap(adapter: WebSocketAdapter): void {
    if (adapter === this) return;
    if (adapter instanceof WebSocketManagerAdapter) {
      throw new Error(
        'WebSocketManagerModule: forRoot: got a second call; allowed: one import for the application',
      );
    }
    if (!isWsAdapter(adapter)) {
      const name = adapter?.constructor?.name ?? String(adapter);
      throw new Error(
        `WebSocketManagerModule: useWebSocketAdapter: got ${name}; allowed: WsAdapter of @nestjs/platform-ws, or a class that extends it`,
      );
    }
    // Nest's own way with one that comes this late: what has a server keeps the adapter that made it.
    if (this.hasServers) return;
    this.inner = adapter;
    if (this.forceCloseConnectionsValue !== undefined)
      adapter.forceCloseConnections = this.forceCloseConnectionsValue;
  }

  private innerAdapter(): WsAdapter {
    if (!this.inner) this.wrap(new WsAdapter(this.httpServer));
    return this.inner as WsAdapter;
  }

  private get httpServer(): Server | undefined {
    return this.httpAdapterHost.httpAdapter?.getHttpServer() as Server | undefined;
  }

  /** Puts a listener of ours where the stock adapter's would destroy every upgrade that it does not know. */
  private handOutUpgrades(port: number, server: Server, before: readonly unknown[]): void {
    if (this.upgradeListeners.has(server)) return;
    for (const listener of server.listeners('upgrade')) {
      if (!before.includes(listener)) server.off('upgrade', listener as (...args: unknown[]) => void);
    }
    const handOut: UpgradeListener = (request, socket, head) => {
      const owner = this.ownerOf(port, request);
      if (owner && !this.isHostValid(request.headers.host)) {
        socket.on('error', () => socket.destroy());
        this.door.refuseMalformed(socket, `Host: got "${request.headers.host}", expected host[:port]`);
      } else if (owner) {
        owner.handleUpgrade(request, socket, head, (webSocket) =>
          owner.emit('connection', webSocket, request),
        );
      } else {
        this.leaveToOthers(server, socket);
      }
    };
    server.on('upgrade', handOut);
    this.upgradeListeners.set(server, handOut);
  }

  private ownerOf(port: number, { url = '/' }: IncomingMessage): PathOwner | undefined {
    const owners = registriesOf(this.innerAdapter()).wsServersRegistry.get(port) ?? [];
    // As nearly every client writes it; the rest is for the URL parser.
    for (const owner of owners) if (isAt(owner.path, url)) return owner;
    // In absolute form, as proxies write it, or else a path.
    const isAbsolute = /^(http|ws)s?:\/\//i.test(url);
    const target = isAbsolute ? url : `ws://localhost${url.startsWith('/') ? '' : '/'}${url}`;
    if (!URL.canParse(target)) return undefined;
    const { pathname } = new URL(target);
    return owners.find(({ path }) => path === pathname);
  }

  /** As on the platform, which makes a URL of it; a request without one is taken there too. */
  private isHostValid(host: string | undefined): boolean {
    // Nearly all requests have the same one.
    if (host === undefined || host === this.validHost) return true;
    if (!URL.canParse(`ws://${host}/`)) return false;
    this.validHost = host;
    return true;
  }

  private leaveToOthers(server: Server, socket: Duplex): void {
    socket.on('error', () => socket.destroy());
    if (server.listenerCount('upgrade') === 1) {
      this.refusals.answerNotFound(socket);
      return;
    }
    // Somebody else may want it. If nobody reads it after a while, nobody will, and it must not stay open.
    const isTaken = () => socket.listenerCount('data') > 0 || socket.listenerCount('readable') > 0;
    const timer = this.clock.setTimeout(() => {
      if (!isTaken()) socket.destroy();
    }, this.options.admission.authenticateTimeoutMs);
    socket.once('close', () => this.clock.clearTimeout(timer));
  }

  /**
   * While an asynchronous `handleConnection` runs, messages for handlers wait: no handler runs before it, and no message
   * is lost or overtaken. One that takes longer than authentication may goes on beside the messages, as on the
   * stock adapter: it may be meant to last.
   */
  private bufferUntilConnected(client: ManagedWebSocket, connection: Connection): void {
    const connected = this.hooks.whenConnected(connection);
    if (!connected) return;
    const buffered = client[STATE].bufferMessages(this.bufferBudget);
    const { authenticateTimeoutMs } = this.options.admission;
    whenSettled(
      settleWithin(this.clock, authenticateTimeoutMs, () => connected),
      (settled) => buffered.release(settled.status !== 'done' || settled.value),
    );
  }

  /** Lets the adapter put its own listeners on the socket; they wait for `handleConnection` as ours do. */
  private bindStock(client: unknown, bind: () => void): void {
    const buffered = connectionOf(client) && (client as ManagedWebSocket)[STATE]?.buffered;
    if (buffered) buffered.capture(bind);
    else bind();
  }
}

/**
 * Whether the adapter's own message handling logs what its parser throws: Nest's does from 12.1 on, but not for the parser
 * that it brings. There all adapters have the same one to begin with; before, each has its own.
 */
function isParserLogged(adapter: WsAdapter): boolean {
  const [one, other] = [new WsAdapter(), new WsAdapter()].map((made) => registriesOf(made).messageParser);
  return one === other && registriesOf(adapter).messageParser !== one;
}

function isWsAdapter(adapter: WebSocketAdapter): adapter is WsAdapter {
  const { httpServersRegistry, wsServersRegistry } = registriesOf(adapter);
  return httpServersRegistry instanceof Map && wsServersRegistry instanceof Map;
}

/** Whether a request for this URL is for the path: for nothing else, or with a query. */
function isAt(path: string | undefined, url: string): boolean {
  if (!path || !url.startsWith(path)) return false;
  return url.length === path.length || url[path.length] === '?';
}

/** They are protected, not private: what a subclass may use, a wrapper does too. */
function registriesOf(adapter: WebSocketAdapter): WsAdapterRegistries {
  return adapter as unknown as WsAdapterRegistries;
}
