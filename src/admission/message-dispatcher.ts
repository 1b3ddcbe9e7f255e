import type { MessageMappingProperties } from '@nestjs/websockets';
import { from, isObservable, type ObservableInput, type Subscription } from 'rxjs';
import type { Manager } from '../manager/manager.js';
import type { GatewayListener } from './buffered-messages.js';
import { CLOSED, type ManagedWebSocket, OPEN, type SocketState, STATE } from './managed-websocket.js';

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
   * The listeners for the socket's close have been called. Called for the first of its gateways.
   * @param hasThrown one of them threw, so that those after it have not been called
   */
  noteTold(state: SocketState, args: unknown[], hasThrown: boolean): void {
    // Not left to a listener, which the application may have removed: what a handler has begun ends with its socket.
    endStreams(state);
    if (
      !hasThrown ||
      !state.webSocket.listeners('close').some((listener) => closeListeners.has(listener as object))
    )
      return;
    for (let binding: GatewayBinding | undefined = this; binding; binding = binding.next)
      binding.tell(state, args);
  }

  /** Calls `handleDisconnect`, once. */
  tell(state: SocketState, args: unknown[]): void {
    const { onDisconnect } = this;
    this.onDisconnect = undefined;
    if (onDisconnect) attempt(state, () => onDisconnect(...args));
  }
}

/** What gateways have registered for the close of their sockets. */
const closeListeners = new WeakSet<object>();

type CloseListener = (this: ManagedWebSocket, ...args: unknown[]) => void;

/** The first gateway's: one for all sockets. */
const onClose: CloseListener = function (...args) {
  const state = this[STATE];
  if (state.gateway) noteClosed(state, state.gateway, args);
};
closeListeners.add(onClose);

function noteClosed(state: SocketState, binding: GatewayBinding, args: unknown[]): void {
  if (state.buffered?.defer(() => noteClosed(state, binding, args))) return;
  endStreams(state);
  binding.tell(state, args);
}

function endStreams(state: SocketState): void {
  for (const stream of state.streams ?? []) attempt(state, () => stream.unsubscribe());
}

function attempt(state: SocketState, call: () => void): void {
  try {
    call();
  } catch (error) {
    state.failed('close', error);
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
  /** The first gateway's: one for all sockets. */
  private readonly onMessage: GatewayListener;

  constructor(
    /** The adapter's parser of the moment; it may be set at any time. */
    private readonly parse: (data: unknown) => Message | undefined,
    private readonly report: (hook: string, error: unknown) => void,
    /** Whether what is no JSON is worth a line: the adapter's own parser gets that from every client. */
    private readonly reportsSyntaxErrors: () => boolean,
  ) {
    this.onMessage = this.listenerOf();
  }

  /** Hands the socket's messages to the gateway from here on. */
  bind(socket: ManagedWebSocket, routes: GatewayRoutes, handlers: readonly MessageMappingProperties[]): void {
    routes.indexOf ??= new Map(handlers.map(({ message }, index) => [message, index]));
    const callbacks = handlers.map(({ callback }) => callback);
    const binding = new GatewayBinding(routes, callbacks);
    const state = socket[STATE];
    const last = lastOf(state.gateway);
    if (last) last.next = binding;
    else state.gateway = binding;
    socket.on('message', last ? this.listenerOf(binding) : this.onMessage);
  }

  /** `binding`: default, the first of the socket. */
  private listenerOf(binding?: GatewayBinding): GatewayListener {
    const dispatcher = this;
    return function listener(data, isBinary) {
      const state = (this as ManagedWebSocket)[STATE];
      const gateway = binding ?? state.gateway;
      if (!gateway || state.buffered?.take(listener, data, isBinary)) return;
      // Parsed for each gateway: what one of them does to its message is nothing to the others.
      const message = dispatcher.parsed(isBinary ? data : String(data));
      const index = message ? gateway.routes.indexOf?.get(message.event) : undefined;
      if (message && index !== undefined)
        dispatcher.run(state, gateway.callbacks[index] as MessageCallback, message);
    };
  }

  private parsed(data: unknown): Message | undefined {
    try {
      return this.parse(data);
    } catch (error) {
      if (!(error instanceof SyntaxError) || this.reportsSyntaxErrors()) this.report('message parser', error);
      return undefined;
    }
  }

  private run(state: SocketState, callback: MessageCallback, { data, event }: Message): void {
    const manager = state.connection?.manager;
    // Not the only message under way: its answer can go out with theirs.
    if (manager?.isBusy) state.openBatch();
    manager?.workBegins();
    // Not an asynchronous function: what one keeps of itself while it waits is more than these two.
    const answered = (answer: unknown) => this.answer(state, manager, answer);
    const failed = (error: unknown) => this.fail(manager, error);
    try {
      Promise.resolve<unknown>(callback(data, event as string)).then(answered, failed);
    } catch (error) {
      failed(error);
    }
  }

  private answer(state: SocketState, manager: Manager | undefined, answer: unknown): void {
    try {
      if (isObservable(answer)) this.stream(state, answer);
      else this.send(state, answer);
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
  private stream(state: SocketState, answers: ObservableInput<unknown>): void {
    if (state.webSocket.readyState === CLOSED) return;
    const manager = state.connection?.manager;
    manager?.workBegins();
    const subscription = from(answers).subscribe({
      next: (answer) => this.trySend(state, answer),
      error: (error: unknown) => this.report('message handler', error),
    });
    state.streams ??= new Set();
    state.streams.add(subscription);
    subscription.add(() => {
      state.streams?.delete(subscription);
      manager?.workEnds();
    });
  }

  private trySend(state: SocketState, answer: unknown): void {
    try {
      this.send(state, answer);
    } catch (error) {
      this.report('message handler', error);
    }
  }

  private send(state: SocketState, answer: unknown): void {
    if (answer === undefined || answer === null || state.webSocket.readyState !== OPEN) return;
    state.answer(JSON.stringify(answer));
  }
}

/** Calls back when the socket has closed. @returns whether the socket is one whose messages are dispatched here. */
export function onDisconnect(socket: ManagedWebSocket, callback: (...args: unknown[]) => void): boolean {
  const state = socket[STATE];
  const binding = lastOf(state?.gateway);
  if (!binding || binding.onDisconnect) return false;
  binding.onDisconnect = callback;
  if (binding === state.gateway) {
    socket.on('close', onClose);
  } else {
    const listener: CloseListener = (...args) => noteClosed(state, binding, args);
    closeListeners.add(listener);
    socket.on('close', listener);
  }
  return true;
}

function lastOf(binding: GatewayBinding | undefined): GatewayBinding | undefined {
  let last = binding;
  while (last?.next) last = last.next;
  return last;
}
