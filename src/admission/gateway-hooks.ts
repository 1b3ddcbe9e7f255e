import { type ArgumentsHost, Catch, type ExceptionFilter, Injectable, UseFilters } from '@nestjs/common';
import { DiscoveryService } from '@nestjs/core';
import { WsException } from '@nestjs/websockets';
import { isThenable, settleWithin } from '../clock/deadline.js';
import { EventStream } from '../events/event-stream.js';
import type { Connection } from '../manager/connection.js';
import { ManagerRegistry } from '../manager/manager-registry.js';
import { connectionOf, OPEN, type WebSocketLike } from './managed-websocket.js';

/**
 * Nest's own mark of a gateway. The constant moved between Nest 11 (`@nestjs/websockets/constants`) and 12
 * (`/internal`), the value did not.
 */
const GATEWAY_METADATA = 'websockets:is_gateway';
const OPTIONS_METADATA = 'websockets:gateway_options';
const PORT_METADATA = 'port';
/** `@UseFilters()` has been there. */
const FILTERS_METADATA = '__exceptionFilters__';

type Hook = (this: unknown, client: unknown, ...args: unknown[]) => unknown;
type HookName = 'handleConnection' | 'handleDisconnect';
interface Gateway {
  handleConnection?: Hook;
  handleDisconnect?: Hook;
}

const GUARDED = Symbol.for('nestjs-websocket-manager:guarded-hook');

/** The hooks of each application, by its registry. */
const ownerOf = new WeakMap<ManagerRegistry, GatewayHooks>();

/**
 * Stands between Nest and the gateways' `handleConnection` and `handleDisconnect`: on the platform a throw or a
 * rejection in either ends the process, nobody waits for an asynchronous one, and what the second is told about
 * the close differs between Nest 11 and 12.
 */
@Injectable()
export class GatewayHooks {
  /** Of connections whose `handleConnection` is still running. */
  private readonly connecting = new WeakMap<Connection, Promise<unknown>[]>();
  private readonly disconnecting = new Set<Promise<unknown>>();
  private readonly scoped: object[] = [];
  /** Of connections whose `handleConnection` has still to be called. */
  private readonly expected = new WeakMap<Connection, (done: boolean) => void>();

  constructor(
    private readonly discovery: DiscoveryService,
    private readonly events: EventStream,
    registry: ManagerRegistry,
  ) {
    ownerOf.set(registry, this);
  }

  /** Guards the hooks of every gateway of the application. To be called before Nest binds them. */
  guardAll(): void {
    for (const { instance, metatype, isDependencyTreeStatic } of this.gateways()) {
      // A static gateway is one object; a request-scoped one is made anew for each client from its prototype.
      const target = (isDependencyTreeStatic ? instance : metatype.prototype) as Gateway;
      if (!isDependencyTreeStatic) {
        if (target.handleConnection) this.scoped.push(metatype);
        // Without the hook, Nest has nowhere to send the error of a dependency that cannot be made for a client.
        target.handleConnection ??= () => {};
        target.handleDisconnect ??= () => {};
      }
      this.guard(target, 'handleConnection', !isDependencyTreeStatic);
      this.guard(target, 'handleDisconnect');
    }
  }

  /** Whether a gateway of this server is made anew for each client, and calls `handleConnection` only then. */
  connectsLater(port: number, path: unknown): boolean {
    return this.scoped.some((metatype) => {
      const options = Reflect.getMetadata(OPTIONS_METADATA, metatype) as { path?: unknown } | undefined;
      return (Reflect.getMetadata(PORT_METADATA, metatype) ?? 0) === port && options?.path === path;
    });
  }

  /** The client's `handleConnection` will be called: until it is done, {@link whenConnected} waits. */
  expectConnected(client: unknown): void {
    const connection = connectionOf(client);
    if (!connection || this.expected.has(connection)) return;
    const settled = new Promise<boolean>((resolve) => {
      this.expected.set(connection, resolve);
    });
    this.track('handleConnection', connection, settled);
  }

  /** When the client's `handleConnection` hooks are done, whether all went well; undefined: nothing to wait for. */
  whenConnected(connection: Connection): Promise<boolean> | undefined {
    const hooks = this.connecting.get(connection);
    return hooks && Promise.all(hooks).then((wentWell) => wentWell.every(Boolean));
  }

  /** Resolves when no `handleDisconnect` is running any more. */
  async whenDisconnected(): Promise<void> {
    while (this.disconnecting.size > 0) await Promise.all(this.disconnecting);
  }

  private *gateways() {
    for (const wrapper of this.discovery.getProviders()) {
      const { instance, metatype } = wrapper;
      if (!instance || typeof metatype !== 'function' || !Reflect.hasMetadata(GATEWAY_METADATA, metatype))
        continue;
      yield {
        instance: instance as object,
        metatype,
        isDependencyTreeStatic: wrapper.isDependencyTreeStatic(),
      };
    }
  }

  private guard(target: Gateway, name: HookName, isLater = false): void {
    const original = target[name];
    if (typeof original !== 'function' || GUARDED in original) return;
    const call = (self: unknown, client: unknown, args: unknown[]) => {
      const connection = connectionOf(client);
      // A prototype is shared by all applications of the process: the client knows whose it is.
      const owner = (connection && ownerOf.get(connection.manager.registry)) ?? this;
      const result = owner.call(name, original, self, client, args);
      if (connection && isLater) {
        void Promise.resolve(result).then(() => owner.expected.get(connection)?.(true));
      }
      return result;
    };
    const guarded: Hook = function (client, ...args) {
      return call(this, client, args);
    };
    if (isLater && !hasFilters(target, original)) UseFilters(new HookErrorFilter())(guarded);
    // Filters and scopes that decorators have put on the method stay on it.
    for (const key of Reflect.getMetadataKeys(original)) {
      Reflect.defineMetadata(key, Reflect.getMetadata(key, original), guarded);
    }
    Object.defineProperty(guarded, 'name', { value: original.name });
    Object.defineProperty(guarded, GUARDED, { value: true });
    Object.defineProperty(target, name, { value: guarded, writable: true, configurable: true });
  }

  private call(name: HookName, original: Hook, self: unknown, client: unknown, args: unknown[]): unknown {
    const connection = connectionOf(client);
    const { code, reason } = connection?.closed ?? {};
    const given = name === 'handleDisconnect' && connection?.closed ? [code, reason] : args;
    let result: unknown;
    try {
      result = original.call(self, client, ...given);
    } catch (error) {
      result = Promise.reject(error);
    }
    // Of whatever realm: under Jest, Node's own promises are not of the test's.
    if (!isThenable(result)) return result;
    const settled = Promise.resolve(result).then(
      () => true,
      (error: unknown) => {
        if (name === 'handleConnection' && isWsException(error))
          return this.tellException(name, client, error);
        this.fail(name, connection, error);
        return false;
      },
    );
    if (connection) this.track(name, connection, settled);
    return settled;
  }

  /**
   * What an application tells a client by throwing a `WsException`, as later versions of Nest do: the client gets it, and
   * stays connected. @returns whether the connection goes on
   */
  private tellException(name: HookName, client: unknown, exception: WsException): boolean {
    const error = exception.getError();
    const data =
      typeof error === 'object' && error !== null
        ? error
        : { status: 'error', message: error, cause: { pattern: name } };
    try {
      const webSocket = client as WebSocketLike;
      if (webSocket.readyState === OPEN) webSocket.send(JSON.stringify({ event: 'exception', data }));
      return true;
    } catch (failure) {
      this.fail(name, connectionOf(client), failure);
      return false;
    }
  }

  /** For {@link HookErrorFilter} too. */
  fail(hook: string, connection: Connection | undefined, error: unknown): void {
    this.events.report({ type: 'hook_failed', hook, error });
    connection?.end({ reason: 'internal' });
  }

  private track(name: HookName, connection: Connection, settled: Promise<boolean>): void {
    if (name === 'handleConnection') {
      const hooks = this.connecting.get(connection) ?? [];
      hooks.push(settled);
      this.connecting.set(connection, hooks);
      void settled.then(() => this.connecting.delete(connection));
    } else {
      connection.trackDisconnectHook(settled);
      // No shutdown waits longer; one that never settles would keep its connection, and all that hangs on it, for ever.
      const { clock, options } = connection.manager.registry;
      const mostMs = Math.max(options.cleanup.hookTimeoutMs, options.drain.timeoutMs);
      const waitedFor = Promise.resolve(settleWithin(clock, mostMs, () => settled));
      this.disconnecting.add(waitedFor);
      void waitedFor.then(() => this.disconnecting.delete(waitedFor));
    }
  }
}

/**
 * Where a dependency of a request-scoped gateway cannot be made for a client, Nest asks the hook's filters. Its own
 * last resort would send the client the whole upgrade request, serialised.
 */
@Catch()
class HookErrorFilter implements ExceptionFilter {
  catch(error: unknown, host: ArgumentsHost): void {
    const connection = connectionOf(host.switchToWs().getClient());
    if (connection)
      ownerOf.get(connection.manager.registry)?.fail('request-scoped gateway', connection, error);
  }
}

/** Of whatever copy of Nest. */
function isWsException(error: unknown): error is WsException {
  if (error instanceof WsException) return true;
  const { name } = (error as { constructor?: { name?: unknown } } | undefined)?.constructor ?? {};
  return name === 'WsException' && typeof (error as Partial<WsException>).getError === 'function';
}

function hasFilters(target: Gateway, hook: Hook): boolean {
  return (
    Reflect.hasMetadata(FILTERS_METADATA, target.constructor) || Reflect.hasMetadata(FILTERS_METADATA, hook)
  );
}
