// npm run test:package
// Builds and packs the package, and drives the applications of examples/ with what was packed. docs/compatibility.json and
// the table in README.md are made of what ran: `-- --write` writes them, and without it a run fails where they say
// anything else. `-- --quick` leaves out the other Node versions, what `nest new` makes for them, and the table with them.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { quick: { type: 'boolean' }, write: { type: 'boolean' } },
});
const root = fileURLToPath(new URL('../', import.meta.url));
const read = (path) => readFileSync(join(root, path), 'utf8');

const report = runTests();
if (!report) process.exit(1);
if (!values.quick && positionals.length === 0) keep(resultsOf(report));

/** The runner's report; undefined: something failed, and the runner has said what. */
function runTests() {
  const directory = mkdtempSync(join(tmpdir(), 'compatibility-report-'));
  const outputFile = join(directory, 'report.json');
  const vitest = createRequire(import.meta.url).resolve('vitest/package.json');
  const args = ['run', '--project', 'package', '--reporter=default', '--reporter=json', ...positionals];
  try {
    const { status } = spawnSync(
      process.execPath,
      [join(vitest, '../vitest.mjs'), ...args, `--outputFile.json=${outputFile}`],
      {
        cwd: root,
        stdio: 'inherit',
        env: { ...process.env, COMPATIBILITY: values.quick ? 'quick' : 'full' },
      },
    );
    return status === 0 ? JSON.parse(readFileSync(outputFile, 'utf8')) : undefined;
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/** What passed: by its title, for each major of Nest, with which versions of Node (`any`: it does not depend on it). */
function resultsOf({ testResults }) {
  const results = {};
  // In an order that does not depend on which was done first.
  for (const { assertionResults } of testResults.toSorted((a, b) => (a.name < b.name ? -1 : 1))) {
    for (const { ancestorTitles, title, status } of assertionResults) {
      const [nest, node = 'Node any'] = ancestorTitles;
      if (status !== 'passed' || !/^Nest \d+$/.test(nest)) continue;
      results[title] ??= {};
      const { [nest]: before } = results[title];
      const version = node.replace('Node ', '');
      results[title][nest] = before ? `${before}, ${version}` : version;
    }
  }
  return results;
}

function keep(results) {
  const compatibility = {
    nodes: longest(Object.values(results).flatMap(Object.values)),
    applications: { 'Nest 12': versionsOf('nest-12'), 'Nest 11': versionsOf('nest-11') },
    results,
  };
  const wanted = {
    'docs/compatibility.json': `${JSON.stringify(compatibility, null, 2)}\n`,
    'README.md': withTable(read('README.md'), tableOf(compatibility)),
  };
  const stale = Object.keys(wanted).filter((path) => contentOf(path) !== wanted[path]);
  if (stale.length === 0) return;
  if (values.write) {
    for (const path of stale) writeFileSync(join(root, path), wanted[path]);
    console.log(`Written: ${stale.join(', ')}`);
  } else {
    console.error(`${stale.join(' and ')}: not what has run now; npm run test:package -- --write`);
    process.exit(1);
  }
}

/** What most is tried with is the longest list of versions. */
function longest(lists) {
  return lists.reduce((most, list) => (list.length > most.length ? list : most));
}

function contentOf(path) {
  try {
    return read(path);
  } catch {
    return undefined;
  }
}

/** As the example's package.json has them: exactly, so these are what is installed. */
function versionsOf(example) {
  const manifest = JSON.parse(read(`examples/${example}/package.json`));
  const { type = 'commonjs', dependencies, devDependencies } = manifest;
  const { typescript, vitest, jest } = devDependencies;
  return {
    nest: dependencies['@nestjs/core'],
    'platform-ws': dependencies['@nestjs/platform-ws'],
    format: type === 'module' ? 'ESM' : 'CommonJS',
    typescript,
    tests: vitest ? `Vitest ${vitest}` : `Jest ${jest}`,
  };
}

function tableOf({ nodes, applications, results }) {
  const majors = Object.keys(applications);
  const heads = majors.map((nest) => {
    const { nest: version, format, typescript, tests } = applications[nest];
    return `Nest ${version}, ${format}, TypeScript ${typescript}, ${tests}`;
  });
  const cell = (ran) => {
    if (ran === undefined) return '-';
    return ran === nodes || ran === 'any' ? 'yes' : `Node ${ran}`;
  };
  const { packedBytes } = JSON.parse(read('test/package/limits.json'));
  const rows = Object.entries(results).map(
    ([title, ran]) => `| ${title} | ${majors.map((nest) => cell(ran[nest])).join(' | ')} |`,
  );
  return [
    `On each of Node ${nodes}, unless it says otherwise:`,
    '',
    `| | ${heads.join(' | ')} |`,
    `| --- |${' --- |'.repeat(majors.length)}`,
    ...rows,
    '',
    `publint and are-the-types-wrong find nothing. It is at most ${packedBytes / 1_000} kB packed, and depends on nothing else.`,
  ].join('\n');
}

function withTable(readme, table) {
  const markers = /(<!-- compatibility -->).*?(<!-- \/compatibility -->)/s;
  if (!markers.test(readme)) throw new Error('README.md: there is no place for the table of what was tried');
  return readme.replace(markers, (_all, begin, end) => `${begin}\n${table}\n${end}`);
}
