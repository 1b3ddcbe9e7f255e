// node bench/profile.mjs [connect|cycle|echo|idle] [--server ours] [--top 25] [--seconds 4] [--save FILE]
// Where the CPU of a server goes under a load: self time by file and by function. Run it on a built package.
import { writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { withServer } from './processes.mjs';

const SAMPLE_EVERY_US = 200;
const NATIVE = '(native)';

const { values: args, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    server: { type: 'string', default: 'ours' },
    top: { type: 'string', default: '25' },
    seconds: { type: 'string', default: '4' },
    save: { type: 'string' },
  },
});
const [load = 'echo'] = positionals;
const forMs = Number(args.seconds) * 1_000;

/** Each warms up, and returns what is to be looked at. */
const LOADS = {
  async connect(generator) {
    await generator.ask('cycle', { count: 2_000 });
    return () => generator.ask('open', { count: Math.round(forMs) });
  },
  async cycle(generator) {
    await generator.ask('cycle', { count: 2_000 });
    return () => generator.ask('cycle', { count: Math.round(forMs) });
  },
  async echo(generator) {
    await generator.ask('open', { count: 100 });
    await generator.ask('startEcho', { depth: 10, size: 32 });
    await sleep(1_500);
    return () => sleep(forMs);
  },
  /** 10,000 connections, with a beat of as long as is looked. */
  async idle(generator) {
    await generator.ask('open', { count: 10_000 });
    await sleep(5_000);
    return () => sleep(forMs);
  },
};

if (!LOADS[load]) throw new Error(`profile: got ${load}; allowed: ${Object.keys(LOADS).join(', ')}`);
const env = load === 'idle' ? { BEAT_MS: String(forMs) } : {};
const profile = await withServer(args.server, { env }, async (server, generator) => {
  const look = await LOADS[load](generator);
  await server.ask('startProfile', { intervalUs: SAMPLE_EVERY_US });
  await look();
  return server.ask('stopProfile');
});
if (args.save) writeFileSync(args.save, JSON.stringify(profile));
print(selfTimes(profile));
process.exit(0);

function selfTimes({ nodes, samples, timeDeltas }) {
  const frames = new Map(nodes.map(({ id, callFrame }) => [id, callFrame]));
  const times = new Map();
  samples.forEach((id, i) => {
    const { functionName, url, lineNumber } = frames.get(id);
    const file = fileOf(url);
    // Nothing to do, or the profiler itself at its start and end.
    if (functionName === '(idle)' || (file === NATIVE && functionName === 'dispatch')) return;
    const name = file === NATIVE ? functionName : `${functionName || '(anonymous)'}:${lineNumber + 1}`;
    const functions = times.get(file) ?? new Map();
    functions.set(name, (functions.get(name) ?? 0) + timeDeltas[i]);
    times.set(file, functions);
  });
  return times;
}

/** From the package on. */
function fileOf(url) {
  if (url === '') return NATIVE;
  return url.includes('/node_modules/')
    ? url.replace(/^.*\/node_modules\//, '')
    : url.replace(/^.*\/(dist|bench)\//, '$1/');
}

function print(times) {
  const sum = (functions) => [...functions.values()].reduce((a, b) => a + b, 0);
  const total = [...times.values()].reduce((all, functions) => all + sum(functions), 0);
  const share = (us) => `${((100 * us) / total).toFixed(1).padStart(5)} %`;
  const byFile = [...times].sort(([, a], [, b]) => sum(b) - sum(a));
  console.log(`${args.server}, ${load}: ${Math.round(total / 1_000)} ms of CPU`);
  let left = Number(args.top);
  for (const [file, functions] of byFile) {
    if (left <= 0) break;
    console.log(`\n${share(sum(functions))}  ${file}`);
    const most = [...functions].sort(([, a], [, b]) => b - a).filter(([, us]) => us / total >= 0.004);
    for (const [name, us] of most.slice(0, left)) console.log(`   ${share(us)}  ${name}`);
    left -= Math.max(1, Math.min(left, most.length));
  }
}
