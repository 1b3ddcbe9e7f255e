import fc from 'fast-check';
import { afterAll, describe, it } from 'vitest';
import type { WebSocketManagerEvent } from '../../src/events/websocket-manager-event.js';
import { type Action, anyAction, told, USERS } from './history.js';
import { makeIdsRepeatable } from './repeatable-ids.js';
import { anyMoment, anySetting, type Setting } from './setting.js';
import { World } from './world.js';

const HISTORIES = Math.ceil(Number(process.env.HISTORIES ?? 100) / 20);
const SEED = Number(process.env.SEED ?? 20_261_123);

/** Whose days must not depend on the others'. */
const NEIGHBOUR = 1;

afterAll(makeIdsRepeatable());

type OfUser = Extract<Action, { user: number }>;

const anyOfUser = anyAction.filter((action): action is OfUser => 'user' in action);
/** Nothing of the neighbour happens twice in an instant: what cannot be told apart is left to chance. */
const ofNeighbour = anyOfUser.map((action): Action => {
  const own = { ...action, user: NEIGHBOUR };
  return own.do === 'arrive' ? { ...own, count: 1 } : own;
});
const ofOthers = anyOfUser.map(
  (action): Action => ({ ...action, user: action.user === NEIGHBOUR ? 0 : action.user }),
);

const anyStep = fc.record({
  own: fc.option(ofNeighbour, { nil: undefined, freq: 2 }),
  others: fc.array(ofOthers, { maxLength: 3 }),
  wait: anyMoment,
});
const anyDay = fc.record({
  // What is shared on purpose is not to be shared here: the node's places, and crowded slots of the wheel.
  setting: anySetting.map(
    (setting): Setting => ({
      ...setting,
      limit: Math.min(setting.limit, 5),
      connections: 1,
      perNode: undefined,
      sweep: 30_000,
    }),
  ),
  steps: fc.array(anyStep, { maxLength: 15, size: 'max' }),
});

/** What happened to the neighbour, and when; without names that are drawn. */
async function dayOf(setting: Setting, actions: readonly Action[]): Promise<string[]> {
  const world = await World.start(setting);
  const user = USERS[NEIGHBOUR];
  const happened: string[] = [];
  world.core.events.events$.subscribe((event) => {
    if ('userId' in event && event.userId === user) happened.push(`${world.clock.now()} ${shown(event)}`);
  });
  for (const action of actions) await world.live(action);
  return happened.sort();
}

function shown(event: WebSocketManagerEvent): string {
  const { type, sessionKey, reason, outcome, level, durationMs, retryAfterMs } = event as unknown as Record<
    string,
    unknown
  >;
  return JSON.stringify({ type, sessionKey, reason, outcome, level, durationMs, retryAfterMs });
}

describe('any neighbours', () => {
  it(`change nothing for each other (${HISTORIES}, seed ${SEED})`, async () => {
    const property = fc.asyncProperty(anyDay, async ({ setting, steps }) => {
      const alone: Action[] = steps.flatMap(({ own, wait }) => [...(own ? [own] : []), pause(wait)]);
      const together: Action[] = steps.flatMap(({ own, others, wait }) => [
        ...others,
        ...(own ? [own] : []),
        pause(wait),
      ]);
      const [expected, found] = [await dayOf(setting, alone), await dayOf(setting, together)];
      const i = expected.findIndex((what, at) => found[at] !== what);
      if (i < 0 && found.length === expected.length) return;
      const differs = `${found[i < 0 ? expected.length : i]} instead of ${expected[i]}`;
      throw new Error(`${differs}\n${told({ setting, actions: together })}`);
    });
    await fc.assert(property, { numRuns: HISTORIES, seed: SEED, interruptAfterTimeLimit: 120_000 });
  }, 0);
});

function pause(moment: Extract<Action, { do: 'wait' }>['for']): Action {
  return { do: 'wait', for: { ...moment, plus: Math.max(1, moment.plus) } };
}
