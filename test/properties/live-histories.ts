import fc from 'fast-check';
import { anyHistory, type History, shortened, told } from './history.js';
import { World } from './world.js';

/** What is looked for a shorter history that fails, too. */
const SHORTENING_MS = 10_000;
/** A run that was begun for a million is not given up for the first that fails. */
const MOST_FAILURES = 5;
/** Histories of one seed; the next so many have the next one. */
const CHUNK = 1_000;

/** What the histories came to. */
export interface Totals {
  histories: number;
  steps: number;
  /** Events, by what they say. */
  readonly events: Map<string, number>;
}

/**
 * Lives so many histories through, the same ones for the same seed.
 *
 * @throws those that break a promise, shortened.
 */
export async function liveHistories(
  count: number,
  seed: number,
  onProgress: (totals: Totals, failure?: string) => void = () => {},
  histories: fc.Arbitrary<History> = anyHistory,
): Promise<Totals> {
  const totals: Totals = { histories: 0, steps: 0, events: new Map() };
  const property = fc.asyncProperty(histories, async (history) => {
    if (await complaintOf(history, totals)) return false;
    // Nothing in a history waits for the real event loop, which others may be waiting for.
    await new Promise(setImmediate);
    return true;
  });
  const failures: string[] = [];
  for (let chunk = 0; chunk * CHUNK < count && failures.length < MOST_FAILURES; chunk++) {
    const numRuns = Math.min(CHUNK, count - chunk * CHUNK);
    const result = await fc.check(property, { numRuns, seed: seed + chunk, endOnFailure: true });
    if (result.failed) {
      const [found] = result.counterexample as [History];
      failures.push(`${await story(found)}\nSEED=${seed + chunk}, path ${result.counterexamplePath}`);
      onProgress(totals, failures.at(-1));
      continue;
    }
    onProgress(totals);
  }
  if (failures.length > 0) throw new Error(failures.join('\n\n'));
  return totals;
}

/** As a line for each thing that was counted, by name. */
export function figures({ histories, steps, events }: Totals): string {
  const counted = [...events].sort(([a], [b]) => (a < b ? -1 : 1));
  return [`${histories} histories, ${steps} steps`, ...counted.map(([name, n]) => `  ${name}: ${n}`)].join(
    '\n',
  );
}

async function story(found: History): Promise<string> {
  const history = await shortened(found, complaintOf, SHORTENING_MS);
  const complaint = (await complaintOf(history)) ?? 'not again: it hangs on something that is drawn';
  return `${complaint}\n${told(history)}\n${JSON.stringify(history)}`;
}

/** Why the history may not be; undefined: it keeps the promises. */
async function complaintOf(history: History, totals?: Totals): Promise<string | undefined> {
  try {
    const { steps, witness } = await World.live(history);
    if (!totals) return undefined;
    totals.histories++;
    totals.steps += steps;
    for (const [name, n] of witness.tally) totals.events.set(name, (totals.events.get(name) ?? 0) + n);
    return undefined;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}
