import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { Clients } from './clients.js';

const IP = ['/sbin/ip', '/usr/sbin/ip', '/usr/bin/ip', '/bin/ip'].find((path) => existsSync(path)) ?? '';
const TC = ['/sbin/tc', '/usr/sbin/tc', '/usr/bin/tc', '/bin/tc'].find((path) => existsSync(path)) ?? '';

function run(program: string, ...args: string[]): void {
  execFileSync(program, args, { stdio: ['ignore', 'ignore', 'pipe'] });
}

function reasonOf(error: unknown): string {
  return String(error).trim().split('\n').at(-1) ?? '';
}

/** Why this machine has no links of the kernel's own; undefined if it has. */
export function whyNoKernelLinks(): string | undefined {
  if (process.platform !== 'linux') return `network namespaces are Linux', this is ${process.platform}`;
  if (process.getuid?.() !== 0) return 'network namespaces need root';
  if (IP === '' || TC === '') return 'the commands ip and tc are missing (package iproute2)';
  const name = `wsl-${process.pid}-try`;
  try {
    run(IP, 'netns', 'add', name);
    run(IP, 'netns', 'del', name);
    return undefined;
  } catch (error) {
    return `no network namespace can be made: ${reasonOf(error)}`;
  }
}

export interface KernelShape {
  readonly kibPerSecond: number;
  /** One way; needs `netem` in the kernel. */
  readonly delayMs: number;
}

/** Removes the namespaces of runs that were killed: their addresses are used again. */
function removeLeftovers(): void {
  const listed = execFileSync(IP, ['netns', 'list'], { encoding: 'utf8' });
  for (const [name, pid] of listed.matchAll(/^wsl-(\d+)-\w+/gm)) {
    if (!existsSync(`/proc/${pid}`)) run(IP, 'netns', 'del', name);
  }
}

let made = 0;

/**
 * A link between two network namespaces, shaped by the kernel: real TCP, with its retransmissions and their back-off.
 *
 * With `netem` it has bandwidth and delay; a kernel without it has `tbf`, bandwidth and a queue that drops.
 */
export class KernelLink {
  readonly clients: Clients;

  private constructor(
    readonly kind: 'netem' | 'tbf',
    private readonly namespace: string,
    private readonly farEnd: string,
    /** Where clients find the server. */
    readonly address: string,
  ) {
    this.clients = new Clients({
      execPath: IP,
      execArgv: ['netns', 'exec', namespace, process.execPath],
    });
  }

  static make({ kibPerSecond, delayMs }: KernelShape): KernelLink {
    if (made === 0) removeLeftovers();
    const index = ++made;
    const namespace = `wsl-${process.pid}-${index}`;
    const [near, far] = [`wl${process.pid}${index}a`, `wl${process.pid}${index}b`];
    const subnet = `10.203.${index}`;
    run(IP, 'netns', 'add', namespace);
    run(IP, 'link', 'add', near, 'type', 'veth', 'peer', 'name', far, 'netns', namespace);
    run(IP, 'address', 'add', `${subnet}.1/30`, 'dev', near);
    run(IP, 'link', 'set', near, 'up');
    run(IP, '-n', namespace, 'address', 'add', `${subnet}.2/30`, 'dev', far);
    run(IP, '-n', namespace, 'link', 'set', far, 'up');
    run(IP, '-n', namespace, 'link', 'set', 'lo', 'up');
    const bits = `${kibPerSecond * 8_192}bit`;
    const shape = (...where: string[]): 'netem' | 'tbf' => {
      const add = [...where, 'qdisc', 'add', 'dev', where.length > 0 ? far : near, 'root'];
      try {
        run(TC, ...add, 'netem', 'delay', `${delayMs}ms`, 'rate', bits);
        return 'netem';
      } catch (error) {
        if (!/qdisc kind is unknown/.test(String(error))) throw error;
        // What waits longer is dropped, as by a router with a bounded queue.
        run(TC, ...add, 'tbf', 'rate', bits, 'burst', '3kb', 'latency', '2s');
        return 'tbf';
      }
    };
    const kind = shape();
    shape('-n', namespace);
    return new KernelLink(kind, namespace, far, `${subnet}.1`);
  }

  /** Nothing passes, and nothing is told of it: no FIN, no RST. */
  down(): void {
    run(IP, '-n', this.namespace, 'link', 'set', this.farEnd, 'down');
  }

  up(): void {
    run(IP, '-n', this.namespace, 'link', 'set', this.farEnd, 'up');
  }

  async close(): Promise<void> {
    await this.clients.close();
    // Both ends of the link go with it.
    run(IP, 'netns', 'del', this.namespace);
  }
}
