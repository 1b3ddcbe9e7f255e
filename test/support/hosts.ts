import { type ChildProcess, execFileSync, fork, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { connect, createServer, type Server as NetServer, type Socket } from 'node:net';
import { fileURLToPath } from 'node:url';
import { ADMIN_TOKEN, Server, startServer } from './server.js';
import { until } from './stranger.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const AGENT = fileURLToPath(new URL('./host-agent.mjs', import.meta.url));

export interface Knocked {
  /** 101, what HTTP said, or a close code. */
  readonly status: number;
  readonly ms: number;
}

/** A process on one of the hosts. */
export class Agent {
  private readonly answers = new Map<number, unknown>();
  private lastId = 0;

  constructor(private readonly child: ChildProcess) {
    child.on('message', (message: { id: number }) => this.answers.set(message.id, message));
  }

  open(urls: readonly string[]): Promise<{ statuses: number[] }> {
    return this.ask({ open: urls });
  }

  knock(url: string): Promise<Knocked> {
    return this.ask({ knock: url });
  }

  /** What the server says over HTTP to who has the operator's token. */
  get(url: string): Promise<{ status: number; text: string }> {
    return this.ask({ get: url, headers: { authorization: `Bearer ${ADMIN_TOKEN}` } });
  }

  async ready(): Promise<this> {
    await until(() => this.answers.has(0), 10_000, 'an agent to start');
    return this;
  }

  kill(): void {
    this.child.kill('SIGKILL');
  }

  private async ask<T>(question: object): Promise<T> {
    const id = ++this.lastId;
    this.child.send({ id, ...question });
    await until(() => this.answers.has(id), 20_000, 'the answer of an agent');
    return this.answers.get(id) as T;
  }
}

/** A server, somebody near it, and somebody on a host that can vanish: no FIN, no RST, no answer to anything. */
export interface Hosts {
  readonly how: 'namespaces' | 'relay';
  readonly server: Server;
  readonly near: Agent;
  readonly far: Agent;
  /** Where the far host finds the server. */
  urlFromAfar(query: Record<string, string>): string;
  vanish(): void;
  close(): Promise<void>;
}

const PLACES = ['/sbin/ip', '/usr/sbin/ip', '/usr/bin/ip', '/bin/ip'];
const IP = PLACES.find((place) => existsSync(place)) ?? '';

/** Why this machine cannot have hosts of its own; undefined if it can. */
function whyNoNamespaces(): string | undefined {
  if (process.platform !== 'linux') return `network namespaces are Linux', this is ${process.platform}`;
  if (process.getuid?.() !== 0) return 'network namespaces need root';
  if (IP === '') return 'network namespaces need the command ip, of the package iproute2';
  const name = `wsm-${process.pid}-try`;
  try {
    ip('netns', 'add', name);
    ip('netns', 'del', name);
    return undefined;
  } catch (error) {
    return `network namespaces cannot be made: ${String(error).split('\n')[0]}`;
  }
}

export async function startHosts(env: NodeJS.ProcessEnv): Promise<Hosts> {
  const why = whyNoNamespaces();
  if (why === undefined) return startInNamespaces(env);
  console.warn(`A relay that falls silent stands in for a host that vanishes: ${why}`);
  return startBehindRelay(env);
}

function ip(...args: string[]): void {
  execFileSync(IP, args, { stdio: ['ignore', 'ignore', 'pipe'] });
}

let made = 0;

async function startInNamespaces(env: NodeJS.ProcessEnv): Promise<Hosts> {
  const name = `wsm-${process.pid}-${++made}`;
  const [here, there] = [`${name}a`, `${name}b`];
  const [eth, farEth] = [`wa${process.pid}`, `wb${process.pid}`];
  ip('netns', 'add', here);
  ip('netns', 'add', there);
  ip('link', 'add', eth, 'netns', here, 'type', 'veth', 'peer', 'name', farEth, 'netns', there);
  for (const [namespace, link, address] of [
    [here, eth, '10.200.0.1/30'],
    [there, farEth, '10.200.0.2/30'],
  ] as const) {
    ip('-n', namespace, 'address', 'add', address, 'dev', link);
    ip('-n', namespace, 'link', 'set', link, 'up');
    ip('-n', namespace, 'link', 'set', 'lo', 'up');
  }
  const within = (namespace: string) => ['netns', 'exec', namespace, process.execPath];
  const child = spawn(IP, [...within(here), 'dist/main.js'], {
    cwd: ROOT,
    env: {
      PATH: process.env.PATH,
      NO_COLOR: '1',
      PORT: '0',
      HOST: '0.0.0.0',
      // Nobody but the two hosts can reach it.
      WSM_DEMO_ANYWHERE: 'true',
      WSM_ADMIN_TOKEN: ADMIN_TOKEN,
      ...env,
    },
  });
  const server = await new Server(child).listening();
  const { port } = new URL(server.url);
  server.url = `http://127.0.0.1:${port}`;
  const agentIn = (namespace: string) =>
    new Agent(fork(AGENT, [], { execPath: IP, execArgv: within(namespace) })).ready();
  const [near, far] = await Promise.all([agentIn(here), agentIn(there)]);
  return {
    how: 'namespaces',
    server,
    near,
    far,
    urlFromAfar: (query) => `ws://10.200.0.1:${port}/ws?${new URLSearchParams(query)}`,
    vanish: () => ip('-n', there, 'link', 'set', farEth, 'down'),
    close: async () => {
      near.kill();
      far.kill();
      await server.stop();
      ip('netns', 'del', here);
      ip('netns', 'del', there);
    },
  };
}

/** The kernel still acknowledges what the server sends, up to its buffers; of the far host nothing is heard. */
async function startBehindRelay(env: NodeJS.ProcessEnv): Promise<Hosts> {
  const server = await startServer(env);
  const { port, hostname } = new URL(server.url);
  const sockets: Socket[] = [];
  const relay: NetServer = createServer((far) => {
    const near = connect(Number(port), hostname);
    for (const [from, to] of [
      [far, near],
      [near, far],
    ] as const) {
      sockets.push(from);
      from.on('error', () => {});
      from.pipe(to);
    }
  });
  await new Promise<void>((resolve) => relay.listen(0, '127.0.0.1', resolve));
  const { port: relayPort } = relay.address() as { port: number };
  const [near, far] = await Promise.all([1, 2].map(() => new Agent(fork(AGENT, [])).ready()));
  return {
    how: 'relay',
    server,
    near: near as Agent,
    far: far as Agent,
    urlFromAfar: (query) => `ws://127.0.0.1:${relayPort}/ws?${new URLSearchParams(query)}`,
    vanish: () => {
      for (const socket of sockets) {
        socket.unpipe();
        socket.pause();
      }
    },
    close: async () => {
      near?.kill();
      far?.kill();
      await server.stop();
      for (const socket of sockets) socket.destroy();
      relay.close();
    },
  };
}
