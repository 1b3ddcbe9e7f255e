import { connect, type Socket } from 'node:net';
import { FreezableClient } from '../support/freezable-client.js';
import { RawPeer } from '../support/raw-peer.js';
import { handshake } from '../support/raw-socket.js';
import { type Answer, type KnockOptions, knock, sleep, until } from '../support/stranger.js';
import type { Crowd, Newcomers } from './crowd.js';
import type { SoakedServer } from './soaked-server.js';

/** What faults are done to, and where they say what should not have come of it. */
export interface Scene {
  readonly soaked: SoakedServer;
  readonly crowd: Crowd;
  readonly newcomers: Newcomers;
  readonly fullUsers: readonly string[];
  /** A number that nobody else has: users of a fault are nobody else's. */
  next(): number;
  /** A newcomer, who has to be let in within the bound; the bound leaves out when somebody stood still. */
  letIn(userId: string): Promise<Answer>;
}

/** Resolves when it is over and cleared away; throws where something came of it that should not have. */
export type Fault = (scene: Scene) => Promise<void>;

function expectThat(condition: boolean, what: string): void {
  if (!condition) throw new Error(what);
}

const UNHEARD = ['ECONNRESET', 'ETIMEDOUT', 'ECONNREFUSED'];

/** Knocks again where the kernel's queue had no room, and the server has not heard of it. */
export async function knockUntilHeard(url: string, options?: KnockOptions): Promise<Answer> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await knock(url, options);
    } catch (error) {
      if (attempt === 5 || !UNHEARD.includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
      await sleep(300);
    }
  }
}

/** Shorter than what proves a client dead, whose user is under no pressure. */
const SHORT_FREEZE_MS = 4_500;
const LONG_FREEZE_MS = 14_000;

/** A lid closed and opened: 12 users of 5 sockets. */
const shortFreeze: Fault = async ({ soaked, next }) => {
  const id = next();
  const urls = Array.from({ length: 60 }, (_, i) => soaked.socketUrl(`lid-${id}-${i % 12}`));
  const client = await FreezableClient.open(urls);
  try {
    await client.freeze();
    await sleep(SHORT_FREEZE_MS);
    client.thaw();
    await sleep(300);
    client.send('echo', `after ${id}`);
    const echoes = () => client.of('message').filter(({ event }) => event === 'echo');
    await until(
      () => echoes().length + client.of('closed').length >= 60,
      10_000,
      'the thawed to be answered',
    );
    expectThat(
      client.of('closed').length === 0,
      `${client.of('closed').length} of 60 thawed clients were closed`,
    );
  } finally {
    await client.kill();
  }
};

/** The same for so long that they were taken for dead: their sessions are there to come back to. */
const longFreeze: Fault = async ({ soaked, next }) => {
  const id = next();
  const COUNT = 20;
  const urls = Array.from({ length: COUNT }, (_, i) => soaked.socketUrl(`lid-${id}-${i % 10}`, `tab-${i}`));
  const client = await FreezableClient.open(urls);
  try {
    const sessions = () => client.of('message').filter(({ event }) => event === 'session');
    const before = sessions().map(({ data }) => (data as { managerId: string }).managerId);
    await client.freeze();
    await sleep(LONG_FREEZE_MS);
    client.thaw();
    await sleep(1_500);
    const gone = client.of('closed').map(({ socket }) => socket);
    await client.openMore(gone.map((socket) => urls[socket] as string));
    const back = sessions().slice(COUNT);
    expectThat(back.length === gone.length, `${back.length} of ${gone.length} came back`);
    back.forEach(({ data }, i) => {
      const { joined, managerId } = data as { joined: boolean; managerId: string };
      const same = managerId === before[gone[i] as number];
      expectThat(joined && same, `session ${gone[i]} of ${id} was not found again`);
    });
  } finally {
    await client.kill();
  }
};

/** kill -9 of a process with 200 sockets of 20 users. */
const kill: Fault = async ({ soaked, next, letIn }) => {
  const id = next();
  const users = Array.from({ length: 20 }, (_, i) => `killed-${id}-${i}`);
  const urls = Array.from({ length: 200 }, (_, i) => soaked.socketUrl(users[i % 20] as string));
  const client = await FreezableClient.open(urls);
  await client.kill();
  const areFree = async () => {
    const counts = await Promise.all([0, 7, 19].map((i) => soaked.managersOf(users[i] as string)));
    return counts.every((count) => count === 0);
  };
  await until(areFree, 10_000, 'the places of the killed to be free', 50);
  (await letIn(users[3] as string)).client?.socket.terminate();
};

/** Upgraded sockets that never answer a ping, as those of a host that is gone: three users at their limit. */
const vanished: Fault = async ({ soaked, next, letIn }) => {
  const id = next();
  const users = [0, 1, 2].map((i) => `vanished-${id}-${i}`);
  const sockets: Socket[] = [];
  try {
    for (const userId of users)
      for (let i = 0; i < 20; i++) sockets.push(await silent(soaked.socketUrl(userId)));
    const answers = await Promise.all(users.map(letIn));
    for (const { client } of answers) client?.socket.terminate();
    const areFound = async () => {
      const counts = await Promise.all(users.map((userId) => soaked.managersOf(userId)));
      return counts.every((count) => count === 0);
    };
    await until(areFound, 20_000, 'the vanished to be found', 200);
  } finally {
    for (const socket of sockets) socket.destroy();
  }
};

async function silent(url: string): Promise<Socket> {
  const { hostname, port, pathname, search, host } = new URL(url);
  const socket = connect(Number(port), hostname);
  socket.on('error', () => {});
  await new Promise<void>((resolve, reject) => {
    socket.once('data', () => resolve());
    socket.once('close', () => reject(new Error('a silent client was not let in')));
    socket.write(handshake(`${pathname}${search}`, { Host: host }));
  });
  return socket.resume();
}

/** Handshakes that never end. */
const halfOpen: Fault = async ({ soaked }) => {
  const { hostname, port } = new URL(soaked.url);
  const halves = ['', 'GET /ws?userId=half HTTP/1.1\r\n', 'GET /ws?userId=half HTTP/1.1\r\nHost: a\r\nUpgr'];
  const sockets = Array.from({ length: 300 }, (_, i) => {
    const socket = connect(Number(port), hostname);
    socket.on('error', () => {});
    socket.write(halves[i % halves.length] as string);
    return socket;
  });
  await sleep(8_000);
  for (const socket of sockets) socket.destroy();
  expectThat((await soaked.managersOf('half')) === 0, 'half a handshake took a place');
};

/** Has much echoed and never reads it. */
const slowReader: Fault = async ({ soaked, next }) => {
  const userId = `slow-${next()}`;
  const peer = new RawPeer(soaked.socketUrl(userId));
  try {
    await until(() => peer.opcodes.length > 0, 5_000, 'the session frame');
    peer.allow(0);
    const isGone = async () => {
      for (let i = 0; i < 5; i++) peer.send('echo', 'x'.repeat(100_000));
      return (await soaked.managersOf(userId)) === 0;
    };
    await until(isGone, 20_000, 'the slow reader to be ended', 50);
  } finally {
    peer.destroy();
  }
};

/** Upgrades that are refused, as many as fit into a moment. */
const flood: Fault = async ({ soaked, next }) => {
  const kinds: [status: number, url: string, origin?: string][] = [
    [401, `${soaked.url}/ws`],
    [401, soaked.socketUrl(`is-unknown-${next()}`)],
    [403, soaked.socketUrl('flooder'), 'https://evil.example'],
    [400, soaked.socketUrl('a\nb')],
    [404, `${soaked.url}/nowhere?userId=flooder`],
  ];
  let asked = 0;
  const work = async () => {
    while (asked < 500) {
      const [status, url, origin] = kinds[asked++ % kinds.length] as (typeof kinds)[number];
      const { refusal } = await knockUntilHeard(url, origin ? { headers: { origin } } : {});
      expectThat(refusal?.status === status, `${url}: ${refusal?.status} instead of ${status}`);
    }
  };
  await Promise.all(Array.from({ length: 20 }, work));
};

const TOLERATED = [
  'throws-at-close',
  'hangs-at-close',
  'throws-at-alive',
  'hangs-at-alive',
  'throws-at-disconnect',
  'hangs-at-disconnect',
];

/** Every hook of an application that can fail, failing. */
const throwingHooks: Fault = async ({ soaked, next }) => {
  const id = next();
  const refused = await knockUntilHeard(soaked.socketUrl(`throws-at-authenticate-${id}`));
  expectThat(refused.refusal?.status === 500, 'a throwing authenticate is no 500');
  for (const what of ['throws-at-connect', 'rejects-at-connect']) {
    const { client } = await knockUntilHeard(soaked.socketUrl(`${what}-${id}`), { bare: true });
    await client?.whenClosed(10_000);
    expectThat(client?.closed?.code === 1011, `${what}: closed with ${client?.closed?.code}`);
  }
  await Promise.all(
    TOLERATED.map(async (what) => {
      const { client } = await knockUntilHeard(soaked.socketUrl(`${what}-${id}`));
      expectThat(client !== undefined, `${what}: not let in`);
      await sleep(5_000);
      await client?.echo(what);
      client?.socket.close();
      await client?.whenClosed(10_000);
    }),
  );
};

/** The event loop of the server stands still. */
const stall: Fault = ({ soaked }) => soaked.stall(800 + Math.random() * 700);

/** A limit that falls below what the user has, and rises above it. */
const limitChange: Fault = async ({ soaked, next, letIn }) => {
  const userId = `tier-${next()}`;
  const client = await FreezableClient.open(Array.from({ length: 16 }, () => soaked.socketUrl(userId)));
  const newcomers: Answer[] = [];
  const closed = () => client.of('closed').map(({ code }) => code);
  try {
    await sleep(5_500); // out of their grace
    await soaked.setLimit(userId, 8);
    newcomers.push(await letIn(userId));
    await until(() => closed().length > 0, 10_000, 'somebody to go for a newcomer under a lowered limit', 50);
    await sleep(500);
    expectThat(closed().join() === '4510', `one newcomer under a lowered limit closed [${closed()}]`);
    await soaked.setLimit(userId, 30);
    newcomers.push(...(await Promise.all([1, 2, 3].map(() => letIn(userId)))));
    await sleep(500);
    expectThat(closed().length === 1, 'a newcomer under a raised limit closed somebody');
  } finally {
    for (const newcomer of newcomers) newcomer.client?.socket.terminate();
    await client.kill();
    await soaked.setLimit(userId, undefined);
  }
};

/** Many reload their pages at once. */
const reload: Fault = async ({ crowd }) => crowd.reload(300);

/** More newcomers of one user at the limit than may evict anybody. */
const rush: Fault = async ({ newcomers, fullUsers }) => {
  newcomers.rush(fullUsers[Math.floor(Math.random() * fullUsers.length)] as string, 10);
};

export const FAULTS: Readonly<Record<string, Fault>> = {
  shortFreeze,
  longFreeze,
  kill,
  vanished,
  halfOpen,
  slowReader,
  flood,
  throwingHooks,
  stall,
  limitChange,
  reload,
  rush,
};
