import { afterEach, describe, expect, it } from 'vitest';
import { FreezableClient } from '../support/freezable-client.js';
import { Operator } from '../support/operator.js';
import { type Server, startServer } from '../support/server.js';
import { enter, type Stranger, sleep } from '../support/stranger.js';

let server: Server;
let operator: Operator;

async function start(env: NodeJS.ProcessEnv = {}): Promise<void> {
  server = await startServer(env);
  operator = new Operator(server);
}

afterEach(() => server.stop());

const urlOf = (userId: string, sessionKey?: string) =>
  server.socketUrl({ userId, ...(sessionKey === undefined ? {} : { sessionKey }) });

async function enterMany(userId: string, count: number): Promise<Stranger[]> {
  const clients: Stranger[] = [];
  while (clients.length < count) clients.push(await enter(urlOf(userId)));
  return clients;
}

describe('a cleanup', () => {
  it.each(['conservative', 'moderate', 'aggressive'])(
    'at level %s ends nobody who is there',
    async (level) => {
      await start({ WSM_PROBE_TIMEOUT_MS: '200', WSM_GRACE_MS: '1' });
      const clients = await enterMany('alice', 3);
      const { body } = await operator.post('users/alice/cleanup', { level }).expect(200);
      expect(body).toStrictEqual({
        level,
        examined: 3,
        evicted: [],
        freed: 0,
        durationMs: expect.any(Number),
        outcome: 'nothing_to_do',
      });
      expect(clients.map(({ closed }) => closed)).toEqual([undefined, undefined, undefined]);
    },
  );

  it('ends sessions that were left, each level sooner than the one before', async () => {
    await start({ WSM_RESUME_WINDOW_MS: '1600' });
    const leave = async (key: string) => {
      const client = await enter(urlOf('alice', key));
      client.socket.close();
      await client.whenClosed();
    };
    const freedAt = async (level: string) =>
      (await operator.post('users/alice/cleanup', { level }).expect(200)).body.freed;
    await leave('a');
    await sleep(500);
    expect([await freedAt('conservative'), await freedAt('moderate'), await freedAt('aggressive')]).toEqual([
      0, 0, 1,
    ]);
    await leave('b');
    await sleep(900);
    expect([await freedAt('conservative'), await freedAt('moderate')]).toEqual([0, 1]);
  });

  it('at level aggressive makes suspects of connections that do not answer, and ends none', async () => {
    await start({ WSM_PROBE_TIMEOUT_MS: '200' });
    const frozen = await FreezableClient.open([urlOf('alice'), urlOf('alice')]);
    const [live] = await enterMany('alice', 1);
    await frozen.freeze();
    try {
      const { body } = await operator.post('users/alice/cleanup', { level: 'aggressive' }).expect(200);
      expect(body).toMatchObject({ examined: 3, freed: 0, evicted: [], outcome: 'nothing_to_do' });
      const forced = await operator.post('users/alice/cleanup', { level: 'force', count: 2 }).expect(200);
      const one = {
        managerId: expect.any(String),
        reason: 'no_pong',
        evidence: expect.objectContaining({ signal: 'missed_probe' }),
      };
      expect(forced.body.evicted).toStrictEqual([one, one]);
      expect(live?.closed).toBeUndefined();
    } finally {
      await frozen.kill();
    }
  });

  it('at level force ends the number that is named, and a rehearsal nobody', async () => {
    await start({ WSM_GRACE_MS: '50' });
    const clients = await enterMany('alice', 4);
    await sleep(100);
    const ids = clients.map(({ session }) => session.managerId);
    const order = { level: 'force', count: 2 };
    const rehearsal = await operator.post('users/alice/cleanup', { ...order, dryRun: true }).expect(200);
    expect(rehearsal.body).toMatchObject({ freed: 0, outcome: 'dry_run' });
    expect(rehearsal.body.evicted.map(idOf)).toEqual(ids.slice(0, 2));
    expect(await operator.managersOf('alice')).toEqual(ids);
    const { body } = await operator.post('users/alice/cleanup', order).expect(200);
    expect(body).toMatchObject({ level: 'force', examined: 4, freed: 2, outcome: 'freed' });
    expect(body.evicted.map(idOf)).toEqual(ids.slice(0, 2));
    expect(await clients[0]?.whenClosed()).toEqual({ code: 4510, reason: 'evicted' });
    expect(await operator.managersOf('alice')).toEqual(ids.slice(2));
    const { evictions } = (await operator.get('evictions').expect(200)).body;
    expect(evictions.map(idOf)).toEqual(ids.slice(0, 2).reverse());
    expect(evictions[0]).toMatchObject({
      userId: 'alice',
      reason: 'evicted',
      level: 'force',
      trigger: 'manual',
    });
  });

  it('with a wrong body is refused, naming what is allowed', async () => {
    await start();
    const levels = 'allowed: conservative, moderate, aggressive, force';
    const whole = 'allowed: a whole number from 1 to 1000';
    const cases: [object, string][] = [
      [{}, `level: got undefined; ${levels}`],
      [{ level: 'brutal' }, `level: got "brutal"; ${levels}`],
      [{ level: ['force'], count: 1 }, `level: got ["force"]; ${levels}`],
      [{ level: 'force' }, `count: got undefined; ${whole}, required for force`],
      [{ level: 'force', count: 0 }, `count: got 0; ${whole}, required for force`],
      [{ level: 'force', count: 1.5 }, `count: got 1.5; ${whole}, required for force`],
      [{ level: 'moderate', count: '2' }, `count: got "2"; ${whole}`],
      [{ level: 'moderate', dryRun: 'yes' }, 'dryRun: got "yes"; allowed: true, false'],
      [[], 'body: allowed: {"level", "count"?, "dryRun"?}'],
    ];
    for (const [body, message] of cases) {
      const answer = await operator.post('users/alice/cleanup', body).expect(400);
      expect(answer.body.message).toBe(message);
    }
    await operator.post('users/alice/cleanup').expect(400);
    const malformed = operator.post('users/alice/cleanup').set('Content-Type', 'application/json');
    await malformed.send('{"level":' as unknown as object).expect(400);
  });
});

const idOf = ({ managerId }: { managerId: string }) => managerId;
