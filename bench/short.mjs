// npm run bench:short [-- --keep]
// A short form of the measures that a change is likeliest to spoil, for CI. Machines differ, and a CI machine differs from
// itself by the hour: so nothing is judged but ratios to peers that ran in turns with ours. It fails where even the
// best pair of this run is worse than the worst pair of the run that was kept, and by more than the metric's margin.
// --keep: keep this run's ratios in limits.json, after a change that was meant.
import { readFileSync, writeFileSync } from 'node:fs';
import { door } from './measures/door.mjs';
import { echo } from './measures/echo.mjs';
import { emergency } from './measures/emergency.mjs';
import { held } from './measures/idle.mjs';
import { inTurns, ratio } from './turns.mjs';

const LIMITS = new URL('limits.json', import.meta.url);
const PEERS = ['bare-ws', 'nest-ws'];
const ROUNDS = 3;
/**
 * What the kernel and the heap account for; less is better. No rate: that hangs on whoever else is on the machine, and of a
 * server that has all it can do the CPU of a message says the same.
 */
const JUDGED = { door: ['connectUs', 'cycleUs'], held: ['heapBytes'], echo: ['echoUs'] };
/**
 * What a ratio shifts from one machine to another, beyond the spread of a run: ours saves system calls, and a system call's
 * share of a message is the machine's. Two machines of two cores have been seen 16% apart in CPU (echo beside bare ws);
 * a heap is the same everywhere.
 */
const MARGINS = { connectUs: 0.3, cycleUs: 0.3, echoUs: 0.3, heapBytes: 0.05 };

const isKeeping = process.argv.includes('--keep');
const say = (line) => console.error(line);

const ratios = {};
for (const measure of [door, held, echo]) {
  const servers = [...PEERS, 'ours'];
  const values = await inTurns(measure, { rounds: ROUNDS, servers, settings: measure.settings.short, say });
  for (const metric of JUDGED[measure.id]) {
    for (const peer of PEERS) ratios[`${metric} / ${peer}`] = ratio(values, metric, 'ours', peer);
  }
}

const failures = [];
// What the emergency takes depends on the machine; that everybody is let in does not.
const emergencies = await inTurns(emergency, { rounds: 1, settings: emergency.settings.short, say });
const [admitted] = emergencies.ours.admitted;
if (admitted !== emergency.settings.short.users) failures.push(`emergency: only ${admitted} came in`);

const kept = isKeeping ? {} : JSON.parse(readFileSync(LIMITS, 'utf8'));
console.log(`${'ours / peer'.padEnd(28)} this run               kept`);
for (const [name, now] of Object.entries(ratios)) {
  const before = kept[name];
  console.log(`${name.padEnd(28)} ${spread(now)}    ${before ? spread(before) : ''}`);
  if (before && isWorse(now, before, MARGINS[name.split(' ')[0]]))
    failures.push(`${name}: ${spread(now)}, kept: ${spread(before)}`);
}
if (isKeeping) writeFileSync(LIMITS, `${JSON.stringify(rounded(ratios), null, 2)}\n`);
for (const failure of failures) console.error(`Worse than the noise: ${failure}`);
process.exit(failures.length > 0 ? 1 : 0);

/** Even the best pair of this run, beside the worst that was kept. */
function isWorse(now, before, margin) {
  return now.min > before.max * (1 + margin);
}

function spread({ median, min, max }) {
  return `${median.toFixed(2)} (${min.toFixed(2)} - ${max.toFixed(2)})`;
}

function rounded(all) {
  const round = (value) => Number(value.toFixed(3));
  return Object.fromEntries(
    Object.entries(all).map(([name, { median, min, max }]) => [
      name,
      { median: round(median), min: round(min), max: round(max) },
    ]),
  );
}
