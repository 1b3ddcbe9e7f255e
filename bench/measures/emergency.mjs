import { setTimeout as sleep } from 'node:timers/promises';
import { withServer } from '../processes.mjs';

const LIMIT = 20;
/** The first ping comes after 2 s, and in a crowd up to a quarter of a beat later: until then nobody has answered one. */
const CONFIRMED_AFTER_MS = 6_500;

/**
 * Users whose sessions are all frozen, and who come back. Nobody but this module has an answer to be measured. On a core of
 * its own, a server whose full collection falls into that second stands still for as long as V8's four threads take
 * turns with it: how long would say when the collection came, and nothing else (docs/performance.md).
 */
export const emergency = {
  id: 'emergency',
  title:
    'At the limit: 20 frozen sessions of each user, and the 21st comes (this module; the probe’s deadline is 1,000 ms)',
  servers: ['ours'],
  rounds: 3,
  metrics: {
    oneInMs: { title: 'one user, frozen this instant: in after', unit: 'ms', atMost: 1_050 },
    provenInMs: { title: 'one user, proven dead by the heartbeat before: in after', unit: 'ms', atMost: 5 },
    allInMs: {
      title: 'all users at once, frozen this instant: the last is in after',
      unit: 'ms',
      atMost: 1_500,
    },
    medianInMs: { title: '... half of them after', unit: 'ms' },
    admitted: { title: '... let in', unit: '' },
    blockedMs: { title: '... the event loop stood still for at most', unit: 'ms', atMost: 20 },
  },
  settings: { full: { users: 200 }, short: { users: 50 } },

  async run(name, { users }) {
    const provenInMs = await withServer(
      name,
      { env: { BEAT_MS: '1000' }, sharesCores: true },
      async (_server, load, startLoad) => {
        await load.ask('cycle', { count: 300 });
        const { firstUser } = await load.ask('open', { count: LIMIT, eachUser: LIMIT, prefix: 'full' });
        await sleep(1_500);
        await load.ask('freeze');
        const newcomer = await startLoad();
        await sleep(3_200);
        const { max } = await newcomer.ask('newcomers', { prefix: 'full', firstUser, count: 1 });
        return max;
      },
    );
    return withServer(name, { sharesCores: true }, async (server, load, startLoad) => {
      await load.ask('cycle', { count: 500 });
      const one = await startLoad();
      const ofOne = await one.ask('open', { count: LIMIT, eachUser: LIMIT, prefix: 'one' });
      const ofAll = await load.ask('open', { count: users * LIMIT, eachUser: LIMIT, prefix: 'full' });
      const newcomers = await startLoad();
      await newcomers.ask('cycle', { count: 300 });
      await sleep(CONFIRMED_AFTER_MS);
      await one.ask('freeze');
      const { max: oneInMs } = await newcomers.ask('newcomers', {
        prefix: 'one',
        firstUser: ofOne.firstUser,
        count: 1,
      });
      await server.ask('watchLoop');
      await load.ask('freeze');
      const { admitted, p50, max } = await newcomers.ask('newcomers', {
        prefix: 'full',
        firstUser: ofAll.firstUser,
        count: users,
      });
      const { maxMs } = await server.ask('loopDelay');
      return { oneInMs, provenInMs, allInMs: max, medianInMs: p50, admitted, blockedMs: maxMs };
    });
  },
};

/**
 * The same with those who have a limit or a heartbeat. The clients freeze at the worst moment, when they have just
 * answered a ping. Nothing but time passes, so all servers run at once.
 */
export const frozen = {
  id: 'frozen',
  title: 'Clients that freeze right after a pong, by the beat',
  servers: ['bare-ws', 'ws-heartbeat', 'nest-ws-by-hand', 'nest-socket-io', 'ours'],
  rounds: 1,
  atOnce: true,
  metrics: {
    givenUpAfterS: { title: 'the last of 20 is given up after', unit: 's' },
    newcomerAfterS: { title: 'of 20 frozen and a limit of 20, the 21st is in after', unit: 's' },
  },
  settings: { full: { beatMs: 10_000 }, short: { beatMs: 4_000 } },

  run: (name, { beatMs }) =>
    withServer(name, { env: { BEAT_MS: String(beatMs) } }, async (_server, load, startLoad) => {
      const hasLimit = name === 'ours' || name === 'nest-ws-by-hand';
      const freezing = { afterPongWithinMs: name === 'bare-ws' ? 0 : 2 * beatMs };
      const untilEndedMs = 4 * beatMs;
      await load.ask('open', { count: LIMIT, eachUser: LIMIT, prefix: 'alone' });
      const full = await startLoad();
      const { firstUser } = await full.ask('open', { count: LIMIT, eachUser: LIMIT, prefix: 'full' });
      const newcomer = await startLoad();
      const knocks = async () => {
        await full.ask('freeze', freezing);
        return newcomer.ask('knock', { user: `full${firstUser}`, everyMs: 100, forMs: untilEndedMs });
      };
      const [{ lastEndedAfterMs }, { afterMs }] = await Promise.all([
        load.ask('freeze', { ...freezing, untilEndedMs }),
        hasLimit ? knocks() : {},
      ]);
      return {
        givenUpAfterS: (lastEndedAfterMs ?? Number.NaN) / 1_000,
        ...(hasLimit && { newcomerAfterS: (afterMs ?? Number.NaN) / 1_000 }),
      };
    }),
};
