import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it, onTestFinished } from 'vitest';
import { WebSocket } from 'ws';
import { messageFrame } from '../support/raw-socket.js';
import { type Server, startServer } from '../support/server.js';

const ADAPTERS = ['platform', 'module'] as const;

async function start(scenario: string, adapter: (typeof ADAPTERS)[number], env: NodeJS.ProcessEnv = {}) {
  const server = await startServer(
    { SCENARIO: scenario, ADAPTER: adapter, ...env },
    { script: 'test/support/socket-server.mjs' },
  );
  onTestFinished(async () => void (await server.stop()));
  return server;
}

/** A client, what it gets, and when. */
async function open(server: Server, userId = 'alice') {
  const client = new WebSocket(server.socketUrl({ userId }));
  onTestFinished(() => client.terminate());
  const received: string[] = [];
  const times: number[] = [];
  client.on('message', (data, isBinary) => {
    received.push(isBinary ? `<${data}>` : String(data));
    times.push(performance.now());
  });
  client.on('error', () => {});
  const closed = new Promise<number>((resolve) => client.on('close', resolve));
  await new Promise((resolve) => client.once('open', resolve));
  /** In one segment, so that the server reads them together. */
  const runTogether = (...data: unknown[]) =>
    (client as unknown as { _socket: WebSocket & { write(bytes: Buffer): void } })._socket.write(
      Buffer.concat(data.map((each) => messageFrame('run', each))),
    );
  return { client, received, times, closed, runTogether };
}

describe.each(ADAPTERS)('what the application sends is written within its call (%s)', (adapter) => {
  it.each([
    ['exit', 0],
    ['crash', 1],
  ])('before the process ends by %s', async (scenario, code) => {
    const server = await start(scenario, adapter);
    const { runTogether, closed, received } = await open(server);
    runTogether(1);
    await closed;
    expect([received, (await server.exited).code]).toEqual([['bye'], code]);
  });

  it.each([
    ['exit in a batch', 0],
    ['crash in a batch', 1],
  ])('and so are answers: %s', async (scenario, code) => {
    const server = await start(scenario, adapter);
    const { runTogether, closed, received } = await open(server);
    runTogether(1, 2);
    await closed;
    expect([received, (await server.exited).code]).toEqual([['{"event":"answer","data":1}'], code]);
  });

  it('before work that blocks the process', async () => {
    const { runTogether, times, received } = await open(await start('progress', adapter));
    runTogether(1);
    await expect.poll(() => received, { timeout: 5_000 }).toEqual(['working', 'done']);
    expect((times[1] ?? 0) - (times[0] ?? 0)).toBeGreaterThan(300);
  });

  it('and none of it is buffered while the kernel takes it', async () => {
    const { runTogether, received } = await open(await start('drop', adapter));
    runTogether(1);
    await expect.poll(() => received.length, { timeout: 5_000 }).toBe(201);
    expect(received.at(-1)).toBe('{"event":"result","data":{"dropped":0,"amounts":[0]}}');
  });

  it('before the socket is terminated, with the bytes after it', async () => {
    const { runTogether, closed, received } = await open(await start('kick', adapter));
    runTogether(1);
    expect(await closed).toBe(1006);
    expect(received).toEqual(['kicked', '<bytes>']);
  });
});

describe.each(ADAPTERS)('an asynchronous handleConnection (%s)', (adapter) => {
  it('gets the first message by a listener of its own, and the handler gets it too', async () => {
    const { client, received } = await open(await start('first message', adapter));
    client.send('{"event":"run","data":7}');
    await expect.poll(() => received.length, { timeout: 5_000 }).toBe(2);
    expect([...received].sort()).toEqual([
      'got {"event":"run","data":7} after a moment',
      '{"event":"answer","data":7}',
    ]);
  });
});

const MIB = 1_048_576;

describe('messages while an asynchronous handleConnection runs', () => {
  /** Bytes that the server's memory grew by, at most, while ten connections send what they can. */
  async function attack(deflate: boolean, message: string, many: number, oneUser: boolean) {
    const server = await start('slow', 'module', { DEFLATE: String(deflate) });
    const report = async (signal: NodeJS.Signals, name: string) => {
      const before = server.lines.length;
      server.signal(signal);
      await expect.poll(() => server.lines.length, { timeout: 10_000 }).toBeGreaterThan(before);
      const line = server.lines.findLast((text) => text.startsWith(name)) as string;
      return Number(line.slice(name.length));
    };
    // What the process needs for its first connections is not what the messages cost.
    for (let i = 0; i < 10; i++) (await open(server, `before-${i}`)).client.terminate();
    await sleep(300);
    const before = await report('SIGUSR2', 'rss');
    const all: Awaited<ReturnType<typeof open>>[] = [];
    for (let i = 0; i < 10; i++) all.push(await open(server, oneUser ? 'alice' : `user-${i}`));
    for (const { client } of all) for (let i = 0; i < many; i++) client.send(message);
    await sleep(1_500);
    const most = await report('SIGWINCH', 'most');
    const sent = all.reduce(
      (sum, { client }) =>
        sum + (client as unknown as { _socket: { bytesWritten: number } })._socket.bytesWritten,
      0,
    );
    // None is lost, and none is answered twice.
    await expect
      .poll(() => all.map(({ received }) => received.length), { timeout: 15_000, interval: 100 })
      .toEqual(all.map(() => many));
    if (process.env.SHOW) console.log((most - before) / MIB, sent);
    return { grownMiB: (most - before) / MIB, sent };
  }
  const messageOf = (length: number) => JSON.stringify({ event: 'run', data: 'x'.repeat(length - 25) });

  it.each([
    ['compressed: 600 MiB in 611 KiB', true, messageOf(1_000_000), 60, false],
    ['compressed, of one user', true, messageOf(1_000_000), 60, true],
    ['compressed, 300 of 200 kB each', true, messageOf(200_000), 300, false],
    ['not compressed', false, messageOf(64_000), 20, false],
    ['many small ones', false, messageOf(26), 5_000, false],
  ])('cost 32 MiB at most: %s', async (_, deflate, message, many, oneUser) => {
    const { grownMiB, sent } = await attack(deflate, message, many, oneUser);
    if (deflate) expect(sent).toBeLessThan(MIB);
    expect(grownMiB).toBeLessThan(32);
  });
});
