import type { INestApplication, Provider, Type } from '@nestjs/common';
import type { WsAdapter } from '@nestjs/platform-ws';
import { SubscribeMessage, WebSocketGateway, WebSocketServer } from '@nestjs/websockets';
import type { WebSocket, WebSocketServer as WsServer } from 'ws';
import type { ClientScript } from './client.js';
import type { DifferenceName } from './differences.js';

/** The server's side of one connection, as the application gets it. */
export type ServerSocket = WebSocket & Record<string, unknown>;
export type { WsServer };

/** What a program does on the server may write to its trace through this. */
export interface Trace {
  /** Appends one line: what happened, and with which values. */
  note(what: string, ...values: unknown[]): void;
  /** An error that is recognised in logs and exits: `fault NAME`. */
  fault(name: string): Error;
  /** A callback of `send`, `ping` or `pong` that notes when it is called and with what. */
  callback(name: string): (error?: Error | null) => void;
  /** Notes the events of a socket as they happen. */
  watch(client: ServerSocket, ...events: string[]): void;
}

/** What the application of one run consists of. */
export interface ServerSide {
  readonly gateways: readonly Type[];
  readonly providers?: readonly Provider[];
  /** Changes what belongs to the whole process, before the application is created. */
  readonly beforeBoot?: (platformWs: typeof import('ws')) => unknown;
  /** What `main.ts` would do before it listens. */
  readonly configure?: (app: INestApplication, adapter: WsAdapter | undefined) => unknown;
  /** As `beforeBoot`, when the application listens. */
  readonly afterBoot?: (platformWs: typeof import('ws')) => unknown;
  /** What the adapter gets with `useWebSocketAdapter(new WsAdapter(app, ...))`. Default: the stock adapter. */
  readonly adapter?: (app: INestApplication, adapterClass: typeof WsAdapter) => WsAdapter;
}

/** A small application and a client that uses it. It is run under the plain adapter and under the module. */
export interface Program {
  readonly name: string;
  readonly server: (trace: Trace) => ServerSide;
  readonly client: ClientScript;
  /** It ends its process in this way, or changes what all programs of a process share: it has one of its own. */
  readonly isAlone?: true | 'on the platform';
  /** Set where the module is meant to differ. */
  readonly differs?: Difference;
}

/** What the module does instead, exactly, and which of the named differences this is. */
export interface Difference {
  readonly because: DifferenceName;
  /** The parts of its outcome that are not the platform's. */
  readonly module: Partial<Outcome>;
}

/** All that is compared. */
export interface Outcome {
  readonly server: readonly string[];
  readonly client: readonly string[];
  /** Errors that were logged: `fault NAME`, or what else the line says. */
  readonly log: readonly string[];
  /** How the process ended, and for what; `runs` where it did not. */
  readonly process: string;
}

type Handler = (client: ServerSocket, data: never, trace: Trace) => unknown;

/** A gateway in short. Its hooks and handlers are noted before they run. */
export interface GatewayParts {
  /** Default: `/`. */
  readonly path?: string;
  /** Before the names of its hooks and handlers in the trace. */
  readonly label?: string;
  readonly init?: (server: WsServer, trace: Trace) => unknown;
  readonly connection?: (client: ServerSocket, trace: Trace, ...rest: unknown[]) => unknown;
  readonly disconnect?: (client: ServerSocket, trace: Trace, ...rest: unknown[]) => unknown;
  /** By the event. */
  readonly on?: Readonly<Record<string, Handler>>;
  /** Decorators of handlers, by the event; of the class, under `''`. */
  readonly decorate?: Readonly<Record<string, readonly (MethodDecorator & ClassDecorator)[]>>;
}

/** Makes the class that decorators would make. */
export function gateway(trace: Trace, parts: GatewayParts): Type {
  const { path = '/', label = '', init, connection, disconnect, on = {}, decorate = {} } = parts;
  class Gateway {
    server!: WsServer;
  }
  const methods = Gateway.prototype as unknown as Record<string, (...args: never[]) => unknown>;
  if (init) {
    methods.afterInit = (server: WsServer) => {
      trace.note(`${label}afterInit`);
      return init(server, trace);
    };
  }
  if (connection) {
    methods.handleConnection = (client: ServerSocket, ...rest: unknown[]) => {
      trace.note(`${label}handleConnection`);
      return connection(client, trace, ...rest);
    };
  }
  if (disconnect) {
    methods.handleDisconnect = (client: ServerSocket, ...rest: unknown[]) => {
      trace.note(`${label}handleDisconnect`, rest[0]);
      return disconnect(client, trace, ...rest);
    };
  }
  for (const [event, handler] of Object.entries(on)) {
    const method = `on ${event}`;
    methods[method] = (client: ServerSocket, data: never) => {
      trace.note(`${label}${method}`, data);
      return handler(client, data, trace);
    };
    const descriptor = Object.getOwnPropertyDescriptor(Gateway.prototype, method) as PropertyDescriptor;
    for (const decorator of [SubscribeMessage(event), ...(decorate[event] ?? [])])
      (decorator as MethodDecorator)(Gateway.prototype, method, descriptor);
  }
  WebSocketServer()(Gateway.prototype, 'server');
  WebSocketGateway({ path })(Gateway);
  for (const decorator of decorate[''] ?? []) (decorator as ClassDecorator)(Gateway);
  return Gateway;
}

/** A program with one gateway. */
export function program(
  name: string,
  parts: GatewayParts & Omit<ServerSide, 'gateways'>,
  client: ClientScript,
  more: Pick<Program, 'isAlone' | 'differs'> = {},
): Program {
  const server = (trace: Trace): ServerSide => ({ ...parts, gateways: [gateway(trace, parts)] });
  return { name, server, client, ...more };
}

/** A program of several gateways. */
export function programOf(
  name: string,
  gateways: readonly GatewayParts[],
  client: ClientScript,
  more: Pick<Program, 'isAlone' | 'differs'> & Omit<ServerSide, 'gateways'> = {},
): Program {
  const { isAlone: alone, differs, ...side } = more;
  const server = (trace: Trace): ServerSide => ({
    ...side,
    gateways: gateways.map((parts) => gateway(trace, parts)),
  });
  return { name, server, client, ...(alone && { isAlone: alone }), ...(differs && { differs }) };
}

/** Which of the runs of a process it was. */
const RUN = / of run \d+/;
/** At a drain it is drawn at random. */
const DRAWN = /("retryAfterMs":)\d+/;

/** Whether a program has a process of its own. */
export function isAlone(program: Pick<Program, 'isAlone'>, way: 'platform' | 'module'): boolean {
  return program.isAlone === true || (program.isAlone === 'on the platform' && way === 'platform');
}

/** As it stands in a trace: short, and the same in every run. */
export function shown(value: unknown): string {
  if (typeof value === 'string') {
    const text = value.replace(RUN, '').replace(DRAWN, '$10');
    return text.length > 80 ? `${text.slice(0, 20)}... of ${text.length}` : text;
  }
  if (Buffer.isBuffer(value)) {
    return value.length > 40 ? `bytes of ${value.length}` : `bytes ${value.toString('hex')}`;
  }
  if (ArrayBuffer.isView(value)) return `${value.constructor.name} of ${value.byteLength}`;
  if (value instanceof ArrayBuffer) return `ArrayBuffer of ${value.byteLength}`;
  if (value instanceof Error) {
    const { code } = value as NodeJS.ErrnoException;
    return shown(code ? `${value.name} ${code}` : `${value.name} ${value.message}`);
  }
  if (typeof value === 'function') return `function ${value.name}`;
  if (typeof value !== 'object' || value === null) return String(value);
  return shown(JSON.stringify(value));
}
