import type { MessageMappingProperties } from '@nestjs/websockets';
import { from, isObservable, type ObservableInput, type Subscription } from 'rxjs';
import type { Manager } from '../manager/manager.js';
import { CLOSED, CONNECTION, type ManagedWebSocket, OPEN, sendAlone } from './managed-websocket.js';

type MessageCallback = MessageMappingProperties['callback'];

/** A gateway, as its connections share it: where in the list of handlers each message's handler is. */
export interface GatewayRoutes {
  indexOf?: ReadonlyMap<unknown, number>;
}

/** What one gateway is to one socket. A socket of several gateways on a path has a chain of them. */
export class GatewayBinding {
  onDisconnect: ((...args: unknown[]) => void) | undefined = undefined;
  next: GatewayBinding | undefined = undefined;

  constructor(
    readonly routes: GatewayRoutes,
    readonly callbacks: readonly MessageCallback[],
  ) {}

  /**
   * The socket has closed. Called for the first of its gateways, which tells the others.
   * @param failed told of whatever throws, which keeps nobody else from hearing of the close
   */
  socketClosed({ streams }: ManagedWebSocket, told: unknown[], failed: (error: unknown) => void): void {
    const attempt = (call: () => void) => {
      try {
        call();
      } catch (error) {
        failed(error);
      }
    };
    for (const stream of streams ?? []) attempt(() => stream.unsubscribe());
    for (let binding: GatewayBinding | undefined = this; binding; binding = binding.next) {
      const { onDisconnect } = binding;
      if (onDisconnect) attempt(() => onDisconnect(...told));
    }
  }
}

/** Answers that are still being sent. */
export type Streams = Set<Subscription>;

/** What the platform's default parser yields, or a parser of the application. */
interface Message {
  readonly event?: unknown;
  readonly data?: unknown;
}

/**
 * Takes messages to their handlers, and answers back, as Nest's WsAdapter does: with one map for each gateway and
 * one listener for all sockets, where that builds a pipeline of observables for every socket and every message.
 */
export class MessageDispatcher {
  private readonly onMessage: (this: ManagedWebSocket, data: Buffer, isBinary: boolean) => void;

  constructor(
    /** The adapter's parser of the moment; it may be set at any time. */
    private readonly parse: (data: unknown) => Message | undefined,
    private readonly report: (hook: string, error: unknown) => void,
  ) {
    const dispatcher = this;
    this.onMessage = function (data, isBinary) {
      dispatcher.dispatch(this, isBinary ? data : data.toString());
    };
  }

  /** Hands the socket's messages to the gateway from here on. */
  bind(socket: ManagedWebSocket, routes: GatewayRoutes, handlers: readonly MessageMappingProperties[]): void {
    routes.indexOf ??= new Map(handlers.map(({ message }, index) => [message, index]));
    const callbacks = handlers.map(({ callback }) => callback);
    const binding = new GatewayBinding(routes, callbacks);
    const last = lastOf(socket.gateway);
    if (last) {
      last.next = binding;
      return;
    }
    socket.gateway = binding;
    socket.on('message', this.onMessage);
  }

  private dispatch(socket: ManagedWebSocket, data: unknown): void {
    for (let binding = socket.gateway; binding; binding = binding.next) {
      // Parsed for each gateway: what one of them does to its message is nothing to the others.
      const message = this.parsed(data);
      if (!message) return;
      const index = binding.routes.indexOf?.get(message.event);
      if (index !== undefined) this.run(socket, binding.callbacks[index] as MessageCallback, message);
    }
  }

  private parsed(data: unknown): Message | undefined {
    try {
      return this.parse(data);
    } catch (error) {
      // Anybody can send what is no JSON; a parser that fails otherwise is the application's own.
      if (!(error instanceof SyntaxError)) this.report('message parser', error);
      return undefined;
    }
  }

  private run(socket: ManagedWebSocket, callback: MessageCallback, { data, event }: Message): void {
    const manager = socket[CONNECTION]?.manager;
    manager?.workBegins();
    // Not an asynchronous function: what one keeps of itself while it waits is more than these two.
    const answered = (answer: unknown) => this.answer(socket, manager, answer);
    const failed = (error: unknown) => this.fail(manager, error);
    try {
      Promise.resolve<unknown>(callback(data, event as string)).then(answered, failed);
    } catch (error) {
      failed(error);
    }
  }

  private answer(socket: ManagedWebSocket, manager: Manager | undefined, answer: unknown): void {
    try {
      if (isObservable(answer)) this.stream(socket, answer);
      else this.send(socket, answer, manager?.hasOneWork);
    } catch (error) {
      this.report('message handler', error);
    } finally {
      manager?.workEnds();
    }
  }

  private fail(manager: Manager | undefined, error: unknown): void {
    manager?.workEnds();
    this.report('message handler', error);
  }

  /** Sends what the observable emits, until it completes or the socket closes. */
  private stream(socket: ManagedWebSocket, answers: ObservableInput<unknown>): void {
    if (socket.readyState === CLOSED) return;
    const manager = socket[CONNECTION]?.manager;
    manager?.workBegins();
    const subscription = from(answers).subscribe({
      next: (answer) => this.trySend(socket, answer),
      error: (error: unknown) => this.report('message handler', error),
    });
    socket.streams ??= new Set();
    socket.streams.add(subscription);
    subscription.add(() => {
      socket.streams?.delete(subscription);
      manager?.workEnds();
    });
  }

  private trySend(socket: ManagedWebSocket, answer: unknown): void {
    try {
      this.send(socket, answer);
    } catch (error) {
      this.report('message handler', error);
    }
  }

  private send(socket: ManagedWebSocket, answer: unknown, isAlone = false): void {
    if (answer === undefined || answer === null || socket.readyState !== OPEN) return;
    const text = JSON.stringify(answer);
    if (isAlone) sendAlone(socket, text);
    else socket.send(text);
  }
}

/** Calls back when the socket has closed. @returns whether the socket is one whose messages are dispatched here. */
export function onDisconnect(socket: ManagedWebSocket, callback: (...args: unknown[]) => void): boolean {
  const binding = lastOf(socket.gateway);
  if (!binding || binding.onDisconnect) return false;
  binding.onDisconnect = callback;
  return true;
}

function lastOf(binding: GatewayBinding | undefined): GatewayBinding | undefined {
  let last = binding;
  while (last?.next) last = last.next;
  return last;
}
