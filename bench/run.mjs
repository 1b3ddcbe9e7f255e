// npm run bench [-- --short] [--rounds 3] [--only door,echo] [--servers bare-ws,nest-ws,ours]
import { parseArgs } from 'node:util';
import { door } from './measures/door.mjs';
import { echo } from './measures/echo.mjs';
import { inTurns, ratio, summary } from './turns.mjs';

const { values: args } = parseArgs({
  options: {
    short: { type: 'boolean', default: false },
    rounds: { type: 'string' },
    only: { type: 'string' },
    servers: { type: 'string' },
  },
});
const wanted = args.only?.split(',');
const among = args.servers?.split(',');

for (const measure of [door, echo]) {
  if (wanted && !wanted.includes(measure.id)) continue;
  const servers = measure.servers.filter((name) => !among || among.includes(name));
  const values = await inTurns(measure, {
    rounds: Number(args.rounds ?? (args.short ? 3 : 5)),
    servers,
    settings: measure.settings[args.short ? 'short' : 'full'],
    say: (line) => console.error(line),
  });
  for (const [metric, { title, unit }] of Object.entries(measure.metrics)) {
    console.log(`\n${title}, ${unit}`);
    for (const name of servers) {
      const { median, min, max } = summary(values[name][metric]);
      const beside = ratio(values, metric, 'ours', name);
      const n = (value) => Number(value.toPrecision(4));
      console.log(
        `  ${name.padEnd(18)} ${n(median)} (${n(min)} - ${n(max)})` +
          (beside
            ? `   ours x${beside.median.toFixed(2)} (${beside.min.toFixed(2)} - ${beside.max.toFixed(2)})`
            : ''),
      );
    }
  }
}
process.exit(0);
