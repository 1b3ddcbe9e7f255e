import { SeededRandom } from './seeded-random.js';

/** How many inputs all kinds have together; FUZZ_CASES raises it. */
const TOTAL = Math.max(1_000, Number(process.env.FUZZ_CASES ?? 220_000));
/** FUZZ_SEED brings a run back. */
const seed = Number(process.env.FUZZ_SEED ?? Date.now() % 2 ** 31);

console.log(`fuzz: FUZZ_SEED=${seed} FUZZ_CASES=${TOTAL}`);

export const random = new SeededRandom(seed);

/** How many inputs a kind gets. */
export const cases = (share: number): number => Math.round(TOTAL * share);
