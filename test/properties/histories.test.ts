import type fc from 'fast-check';
import { afterAll, describe, it } from 'vitest';
import { anyHistory, anySlowHistory, type History } from './history.js';
import { figures, liveHistories, type Totals } from './live-histories.js';
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

/** Of the histories with slow links, for each other one: they take longer. */
const SHARE_OF_SLOW = 0.25;

/** Lives so many of them through, and tells what they came to if they are many. */
async function live(histories: fc.Arbitrary<History>, count: number, seed: number): Promise<void> {
  const startedAt = performance.now();
  const seconds = () => (performance.now() - startedAt) / 1_000;
  let told = 0;
  const onProgress = ({ histories: lived }: Totals, failure?: string) => {
    if (count <= MANY) return;
    if (failure) console.log(failure);
    if (lived < told + MANY) return;
    told = lived;
    console.log(`${lived} of ${count} histories, ${Math.round(lived / seconds())} a second`);
  };
  const totals = await liveHistories(count, seed, onProgress, histories);
  if (count > MANY) console.log(`${figures(totals)}\nin ${Math.round(seconds())} s`);
}

describe('any history', () => {
  const count = Math.ceil(HISTORIES / PARTS);
  const slow = Math.ceil(count * SHARE_OF_SLOW);
  const seed = SEED + (PART - 1) * SEEDS_OF_ONE_PART;

  it(`keeps the promises (${count}, seed ${seed})`, () => live(anyHistory, count, seed), 0);

  it(`keeps the promises on slow links (${slow}, seed ${seed})`, () => live(anySlowHistory, slow, seed), 0);
});
