// npm run bench [-- --rounds 3] [-- --only door,echo] [-- --servers bare-ws,nest-ws,ours] [-- --quick] [-- --dry]
// Measures everything and writes docs/performance.md; with any of these but --rounds, prints only.
import { parseArgs } from 'node:util';
import { MEASURES } from './measures/index.mjs';
import { describeMachine, tablesOf, writePart } from './report.mjs';
import { inTurns } from './turns.mjs';

const ROUNDS = 4;

const { values: args } = parseArgs({
  options: {
    only: { type: 'string' },
    servers: { type: 'string' },
    rounds: { type: 'string' },
    quick: { type: 'boolean', default: false },
    dry: { type: 'boolean', default: false },
  },
});
const isPartial = Object.entries(args).some(([name, value]) => value && name !== 'rounds');
const wanted = args.only?.split(',') ?? MEASURES.map(({ id }) => id);
const among = args.servers?.split(',');

const startedAt = performance.now();
const parts = [];
for (const measure of MEASURES.filter(({ id }) => wanted.includes(id))) {
  const servers = measure.servers.filter((name) => !among || among.includes(name));
  if (servers.length === 0) continue;
  const settings = measure.settings[args.quick ? 'short' : 'full'];
  const values = await inTurns(measure, {
    rounds: Number(args.rounds ?? measure.rounds ?? ROUNDS),
    servers,
    settings,
    say: (line) =>
      console.error(`${((performance.now() - startedAt) / 1_000).toFixed(0).padStart(5)} s  ${line}`),
  });
  const tables = tablesOf(measure, values, settings);
  console.log(`\n${tables}`);
  parts.push(tables);
}
if (!isPartial) {
  const date = new Date().toISOString().slice(0, 10);
  writePart('bench', [`${date}; ${describeMachine()}.`, ...parts].join('\n\n'));
}
process.exit(0);
