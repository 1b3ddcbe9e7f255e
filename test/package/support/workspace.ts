import { cp, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { inject } from 'vitest';
import { run } from './command.js';
import { LOWEST, NODES } from './versions.js';

export const PACKAGE = 'nestjs-websocket-manager';
export const EXAMPLES = fileURLToPath(new URL('../../../examples', import.meta.url));

/** A Node version, and the path of its `node`. */
export type NodeVersion = readonly [version: string, node: string];

/** The Node versions of this run; with COMPATIBILITY=quick only the one that is running. */
export const nodes = () => NODES.map(nodeOf).filter(isDistinct);

/** The one that the lowest versions of everything else are tried with. */
export const lowestNode = () => nodeOf(LOWEST);

function nodeOf(version: string): NodeVersion {
  const { nodesIn } = inject('packed');
  if (nodesIn === undefined) return [process.versions.node, process.execPath];
  return [version, join(nodesIn, 'node_modules', `node-${version}`, 'bin', 'node')];
}

function isDistinct([version]: NodeVersion, index: number, all: readonly NodeVersion[]): boolean {
  return all.findIndex(([other]) => other === version) === index;
}

/**
 * A folder of its own for an example: its files, and what `npm install` brings, with the packed package in place of a
 * published one.
 */
export async function install(
  name: string,
  folders: readonly string[],
  versions: Readonly<Record<string, string>> = {},
): Promise<string> {
  const { directory, tarball } = inject('packed');
  const workspace = join(directory, name);
  for (const folder of folders) {
    const filter = (path: string) => !path.includes('node_modules');
    await cp(join(EXAMPLES, folder), workspace, { recursive: true, filter });
  }
  const path = join(workspace, 'package.json');
  const manifest = JSON.parse(await readFile(path, 'utf8'));
  Object.assign(manifest.dependencies, versions, { [PACKAGE]: `file:${tarball}` });
  await writeFile(path, JSON.stringify(manifest));
  await run('npm', ['install', '--no-audit', '--no-fund'], { cwd: workspace, timeoutMs: 240_000 });
  return workspace;
}

/** The TypeScript of a workspace. */
export function tsc(workspace: string, ...args: string[]) {
  return run(process.execPath, ['node_modules/typescript/bin/tsc', ...args], { cwd: workspace });
}
