import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, it } from 'vitest';
import { type Metrics, readMetrics } from '../support/metrics.js';
import { Operator } from '../support/operator.js';
import { type Server, startServer } from '../support/server.js';
import { enter, knock, sleep, until } from '../support/stranger.js';

const SCRIPT = fileURLToPath(new URL('../support/hostile-client.mjs', import.meta.url));
const HANDSHAKES = 400;

let server: Server;
let hostile: ChildProcess | undefined;
afterEach(async () => {
  hostile?.kill('SIGKILL');
  await server.stop();
});

/** Milliseconds from the request to the session frame, sorted. */
async function handshakes(userId: string): Promise<number[]> {
  const times: number[] = [];
  for (let i = 0; i < HANDSHAKES; i++) {
    const { client, ms, refusal } = await knock(server.socketUrl({ userId }));
    expect(refusal).toBeUndefined();
    times.push(ms);
    client?.socket.terminate();
    await sleep(2);
  }
  return times.sort((a, b) => a - b);
}

const at = (share: number, times: number[]): number => times[Math.floor(share * times.length)] as number;

const hostileSum = (metrics: Metrics, name: string) => metrics.sum(`websocket_manager_${name}`);

describe('a user beside one who holds all of its places, floods upgrades and floods frames', () => {
  it('has handshakes that stay quick, and keeps the sessions it has', async () => {
    server = await startServer();
    const operator = new Operator(server);
    const lasting = await enter(server.socketUrl({ userId: 'bob', sessionKey: 'lasting' }));
    await handshakes('bob');
    const alone = await handshakes('bob');

    const url = server.socketUrl({ userId: 'mallory' });
    hostile = fork(SCRIPT, [url, '20', '5'], { execArgv: [] });
    const before = await readMetrics(server);
    await until(async () => (await operator.managersOf('mallory')).length === 20, 5_000, 'mallory to settle');
    await sleep(1_000);
    const beside = await handshakes('bob');
    const after = await readMetrics(server);

    const [p99Alone, p99Beside] = [at(0.99, alone), at(0.99, beside)];
    const refused = hostileSum(after, 'rejections_total') - hostileSum(before, 'rejections_total');
    const frames = hostileSum(after, 'messages_total') - hostileSum(before, 'messages_total');
    console.log(
      `handshakes alone: p50 ${at(0.5, alone).toFixed(1)} ms, p99 ${p99Alone.toFixed(1)} ms; beside a hostile user ` +
        `(${refused} upgrades refused, ${frames} messages): p50 ${at(0.5, beside).toFixed(1)} ms, ` +
        `p99 ${p99Beside.toFixed(1)} ms; ratio ${(p99Beside / p99Alone).toFixed(1)}`,
    );
    expect(refused).toBeGreaterThan(100);
    expect(frames).toBeGreaterThan(10_000);
    // Both users, the flood and this process share the machine: a bound against standing in line, not a measurement.
    expect(p99Beside).toBeLessThan(Math.max(500, 15 * p99Alone));
    expect(at(0.5, beside)).toBeLessThan(Math.max(50, 10 * at(0.5, alone)));
    await lasting.echo('still here');
    expect(await operator.managersOf('mallory')).toHaveLength(20);
    expect(hostileSum(after, 'lockouts_total')).toBe(0);
  });
});
