// What was measured, as text: for the terminal and for docs/performance.md.
import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { cpus, release, totalmem } from 'node:os';
import { pinning, SERVERS } from './processes.mjs';
import { MANY, ratio, summary } from './turns.mjs';

/** As Nest's adapter finds it: its copy of ws may be one of its own. */
const requireAsNest = createRequire(import.meta.resolve('@nestjs/platform-ws'));
const PAGE = new URL('../docs/performance.md', import.meta.url);

/** A part of the page that is written by a program; what stands around it is kept. */
function markers(part) {
  return {
    begin: `<!-- ${part}: written by \`npm run ${part}\` -->`,
    end: `<!-- ${part}: end -->`,
  };
}

export function writePart(part, text) {
  const page = readFileSync(PAGE, 'utf8');
  const { begin, end } = markers(part);
  const [from, to] = [page.indexOf(begin), page.indexOf(end)];
  if (from < 0 || to < from) throw new Error(`docs/performance.md has no part between ${begin} and ${end}`);
  writeFileSync(PAGE, `${page.slice(0, from + begin.length)}\n\n${text}\n\n${page.slice(to)}`);
}

export function describeMachine() {
  const [cpu] = cpus();
  const version = (name) =>
    JSON.parse(readFileSync(new URL(`../node_modules/${name}/package.json`, import.meta.url), 'utf8'))
      .version;
  return [
    `${cpus().length} x ${cpu?.model ?? 'unknown CPU'}, ${Math.round(totalmem() / 2 ** 30)} GiB`,
    `Linux ${release().split('-')[0]}`,
    `Node ${process.versions.node}`,
    `Nest ${version('@nestjs/core')}`,
    `ws ${requireAsNest('ws/package.json').version}`,
    `socket.io ${version('socket.io')}`,
    pinning,
  ].join('; ');
}

/** One table for each metric of a measure: every server, and ours beside it. */
export function tablesOf(measure, values, settings) {
  const servers = Object.keys(values);
  const rounds = Math.max(
    ...servers.flatMap((name) => Object.values(values[name]).map(({ length }) => length)),
  );
  const tables = Object.entries(measure.metrics).map(([metric, about]) =>
    measure.servers.length === 1
      ? lineOf(metric, about, values)
      : tableOf(metric, about, values, servers, rounds),
  );
  const joint = measure.servers.length === 1 ? '\n' : '\n\n';
  const turns = rounds === 1 ? 'one turn' : `${rounds} turns`;
  const set = Object.entries(settings).map(([name, value]) => `${name} ${value.toLocaleString('en')}`);
  return `### ${measure.title}\n\n${capital(turns)}; settings: ${set.join(', ')}.\n\n${tables.join(joint)}`;
}

function tableOf(metric, { title, unit, aims = {}, isCheck }, values, servers, rounds) {
  const spread = rounds < MANY ? 'least - most' : 'middle half';
  const header = ['', unit || 'number', spread, 'ours beside it', spread, 'aim'];
  const lines = servers.flatMap((name) => {
    const own = values[name]?.[metric];
    if (!own) return [];
    const { median, min, max } = summary(own);
    const isCompared = !name.startsWith('ours') && !isCheck && Number.isFinite(median);
    const beside = isCompared ? ratio(values, metric, 'ours', name) : undefined;
    return [
      [
        SERVERS[name].title,
        figure(median),
        rounds > 1 ? `${figure(min)} - ${figure(max)}` : '',
        beside ? `x${factor(beside.median)}` : '',
        beside && rounds > 1 ? `${factor(beside.min)} - ${factor(beside.max)}` : '',
        beside && aims[name] !== undefined ? aimOf(aims[name], metric, beside.median) : '',
      ],
    ];
  });
  const used = header.map((_, column) => column < 2 || lines.some((cells) => cells[column] !== ''));
  const row = (cells) => `| ${cells.filter((_, column) => used[column]).join(' | ')} |`;
  const rule = row(header.map((_, column) => (column === 0 ? '---' : '---:')));
  return [`**${capital(title)}**`, '', row(header), rule, ...lines.map(row)].join('\n');
}

function lineOf(metric, { title, unit, atMost }, values) {
  const [own] = Object.values(values);
  const { median, min, max } = summary(own[metric]);
  const aim = atMost === undefined ? '' : `; aim: at most ${atMost} ${unit}`;
  return `- ${title}: **${figure(median)}**${unit && ` ${unit}`} (${figure(min)} - ${figure(max)})${aim}`;
}

/** More is better where a rate is measured. */
function aimOf(aim, metric, reached) {
  const isMore = metric.endsWith('PerSecond');
  const isMet = isMore ? reached >= aim : reached <= aim;
  return `${isMore ? 'at least' : 'at most'} ${factor(aim)}: ${isMet ? 'met' : 'missed'}`;
}

export function figure(value) {
  if (Number.isNaN(value)) return 'never';
  if (value >= 1_000) return Math.round(value).toLocaleString('en');
  return String(Number(value.toPrecision(3)));
}

function factor(value) {
  return value.toFixed(2);
}

function capital(text) {
  return text[0].toUpperCase() + text.slice(1);
}
