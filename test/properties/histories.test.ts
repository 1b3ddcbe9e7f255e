import { afterAll, describe, it } from 'vitest';
import { figures, liveHistories } from './live-histories.js';
import { makeIdsRepeatable } from './repeatable-ids.js';

/** How many histories are lived through. */
const HISTORIES = Number(process.env.HISTORIES ?? 100);
/** The same histories in every build; another SEED for others. */
const SEED = Number(process.env.SEED ?? 20_261_123);
/** `1/2`: the first half of them, for who shares them out among processes. */
const [PART, PARTS] = (process.env.SHARD ?? '1/1').split('/').map(Number) as [number, number];
/** So far apart are the seeds of the parts. */
const SEEDS_OF_ONE_PART = 1_000_000;
/** More than so many are told about on the way. */
const MANY = 5_000;

afterAll(makeIdsRepeatable());

describe('any history', () => {
  const count = Math.ceil(HISTORIES / PARTS);
  const seed = SEED + (PART - 1) * SEEDS_OF_ONE_PART;

  it(`keeps the promises (${count}, seed ${seed})`, async () => {
    const startedAt = performance.now();
    const seconds = () => (performance.now() - startedAt) / 1_000;
    let told = 0;
    const totals = await liveHistories(count, seed, ({ histories }, failure) => {
      if (count <= MANY) return;
      if (failure) console.log(failure);
      if (histories < told + MANY) return;
      told = histories;
      const speed = Math.round(histories / seconds());
      console.log(`${histories} of ${count} histories, ${speed} a second`);
    });
    if (count > MANY) console.log(`${figures(totals)}\nin ${Math.round(seconds())} s`);
  }, 0);
});
