import fc from 'fast-check';
import { afterAll, describe, it } from 'vitest';
import { anyHistory, type History, shortened, told } from './history.js';
import { makeIdsRepeatable } from './repeatable-ids.js';
import { World } from './world.js';

/** How many histories are lived through. */
const HISTORIES = Number(process.env.HISTORIES ?? 100);
/** The same histories in every build; another SEED for others. */
const SEED = Number(process.env.SEED ?? 20_261_123);
/** What is looked for a shorter history that fails, too. */
const SHORTENING_MS = 10_000;

/** Why the history may not be; undefined: it keeps the promises. */
async function complaintOf(history: History): Promise<string | undefined> {
  try {
    await World.live(history);
    return undefined;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

afterAll(makeIdsRepeatable());

describe('any history', () => {
  it(`keeps the promises (${HISTORIES}, seed ${SEED})`, async () => {
    const property = fc.asyncProperty(anyHistory, async (history) => !(await complaintOf(history)));
    const result = await fc.check(property, { numRuns: HISTORIES, seed: SEED, endOnFailure: true });
    if (!result.failed) return;
    const [found] = result.counterexample as [History];
    const history = await shortened(found, complaintOf, SHORTENING_MS);
    const complaint = (await complaintOf(history)) ?? 'not again: it hangs on something that is drawn';
    throw new Error(
      `${complaint}\nSEED=${SEED}, path ${result.counterexamplePath}, shortened:\n${told(history)}`,
    );
  }, 0);
});
