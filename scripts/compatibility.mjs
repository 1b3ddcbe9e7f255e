// npm run test:package
// Builds and packs the package, and drives the applications of examples/ with what was packed. docs/compatibility.json and
// the table in README.md are made of what ran: `-- --write` writes them, and without it a run fails where they say
// anything else. `-- --quick` leaves out the other Node versions and `nest new`, and the table with them.
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
const require = createRequire(import.meta.url);

const { succeeded, report } = runTests();
if (!succeeded) process.exit(1);
if (!values.quick && positionals.length === 0) keep(resultsOf(report));

function runTests() {
  const directory = mkdtempSync(join(tmpdir(), 'compatibility-report-'));
  const outputFile = join(directory, 'report.json');
  const vitest = join(require.resolve('vitest/package.json'), '../vitest.mjs');
  const args = ['run', '--project', 'package', '--reporter=default', '--reporter=json'];
  try {
    const { status } = spawnSync(
      process.execPath,
      [vitest, ...args, `--outputFile.json=${outputFile}`, ...positionals],
      {
        cwd: root,
        stdio: 'inherit',
        env: { ...process.env, COMPATIBILITY: values.quick ? 'quick' : 'full' },
      },
    );
    if (status !== 0) return { succeeded: false };
    return { succeeded: true, report: JSON.parse(readFileSync(outputFile, 'utf8')) };
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
      results[title][nest] ??= [];
      results[title][nest].push(node.replace('Node ', ''));
    }
  }
  return results;
}

function keep(results) {
  // What is tried with every version that is tried has the most of them.
  const [nodes] = Object.values(results)
    .flatMap(Object.values)
    .toSorted((a, b) => b.length - a.length);
  const compatibility = {
    nodes,
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

function contentOf(path) {
  try {
    return read(path);
  } catch {
    return undefined;
  }
}

/** As the example's package.json has them: exactly, so these are what is installed. */
function versionsOf(example) {
  const {
    type = 'commonjs',
    dependencies,
    devDependencies,
  } = JSON.parse(read(`examples/${example}/package.json`));
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
  const cell = (ran = []) => {
    if (ran.length === 0) return '-';
    const isEverywhere = ran.includes('any') || nodes.every((node) => ran.includes(node));
    return isEverywhere ? 'yes' : `Node ${ran.join(', ')}`;
  };
  const rows = Object.entries(results).map(
    ([title, ran]) => `| ${title} | ${majors.map((nest) => cell(ran[nest])).join(' | ')} |`,
  );
  return [
    `On each of Node ${nodes.slice(0, -1).join(', ')} and ${nodes.at(-1)}:`,
    '',
    `| | ${heads.join(' | ')} |`,
    `| --- |${' --- |'.repeat(majors.length)}`,
    ...rows,
  ].join('\n');
}

function withTable(readme, table) {
  const markers = /(<!-- compatibility -->\n)[\s\S]*?(\n<!-- \/compatibility -->)/;
  if (!markers.test(readme))
    throw new Error('README.md: no <!-- compatibility --> ... <!-- /compatibility -->');
  return readme.replace(markers, (_all, begin, end) => begin + table + end);
}
