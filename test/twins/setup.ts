import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import type { TestProject } from 'vitest/node';
import type { Build } from './runner.js';

declare module 'vitest' {
  export interface ProvidedContext {
    twins: Build;
  }
}

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

/**
 * Compiles the hosts, once for all of the tests: they are processes of plain Node. They load the package from `dist/`
 * of this folder, or of the one that TWINS_PACKAGE names: another build to compare with. With TWINS_WORKSPACE they
 * load Nest and the package from a folder where other versions of them are installed.
 */
export default function setup(project: TestProject): () => void {
  const { TWINS_WORKSPACE: workspace, TWINS_PACKAGE: folder = ROOT } = process.env;
  const directory = mkdtempSync(join(tmpdir(), 'twins-'));
  const tsc = join(createRequire(import.meta.url).resolve('typescript/package.json'), '../bin/tsc');
  const flags = ['--outDir', directory, '--rootDir', 'test', '--noCheck', '--noResolve', '--ignoreConfig'];
  const target = [
    '--target',
    'ES2023',
    '--module',
    'nodenext',
    '--types',
    'node',
    '--experimentalDecorators',
  ];
  writeFileSync(join(directory, 'package.json'), '{ "type": "module" }\n');
  execFileSync(process.execPath, [tsc, ...flags, ...target, ...sources()], { cwd: ROOT, stdio: 'inherit' });
  symlinkSync(join(workspace ?? ROOT, 'node_modules'), join(directory, 'node_modules'));
  project.provide('twins', {
    host: join(directory, 'twins/host.js'),
    entry: workspace ? 'nestjs-websocket-manager' : pathToFileURL(join(folder, 'dist/index.js')).href,
  });
  return () => rmSync(directory, { recursive: true, force: true });
}

/** What the hosts consist of. */
function sources(): string[] {
  const files = readdirSync(join(ROOT, 'test/twins'), { recursive: true, encoding: 'utf8' });
  const isOfTests = /\.test\.ts$|^(setup|runner)\.ts$/;
  return [
    'test/support/seeded-random.ts',
    ...files
      .filter((file) => file.endsWith('.ts') && !isOfTests.test(file))
      .map((file) => `test/twins/${file}`),
  ];
}
