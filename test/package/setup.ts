import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { TestProject } from 'vitest/node';
import { run } from './support/command.js';
import { NODE_PACKAGES } from './support/versions.js';

declare module 'vitest' {
  export interface ProvidedContext {
    packed: {
      /** Where everything is made that is tried; outside of the repository, and gone afterwards. */
      readonly directory: string;
      /** What `npm pack` made. */
      readonly tarball: string;
      readonly files: readonly string[];
      readonly packedBytes: number;
      readonly unpackedBytes: number;
      /** Where the other Node versions are installed; undefined: not wanted. */
      readonly nodesIn: string | undefined;
    };
  }
}

/** What `npm pack --json` says. */
interface Pack {
  readonly filename: string;
  readonly size: number;
  readonly unpackedSize: number;
  readonly files: readonly { readonly path: string }[];
}

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

/** Builds and packs, once for all of the tests: the source folder is not what is tried. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const directory = await mkdtemp(join(tmpdir(), 'compatibility-'));
  const remove = () => rm(directory, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
  try {
    const installing = process.env.COMPATIBILITY === 'quick' ? undefined : installNodes(directory);
    const packing = buildAndPack(directory);
    // Both to their end, so that nothing is still being written where it is removed.
    await Promise.allSettled([installing, packing]);
    const [nodesIn, pack] = [await installing, await packing];
    project.provide('packed', {
      directory,
      tarball: join(directory, pack.filename),
      files: pack.files.map(({ path }) => path),
      packedBytes: pack.size,
      unpackedBytes: pack.unpackedSize,
      nodesIn,
    });
  } catch (error) {
    await remove();
    throw error;
  }
  return remove;
}

async function buildAndPack(directory: string): Promise<Pack> {
  await run('npm', ['run', 'build'], { cwd: ROOT });
  const { stdout } = await run('npm', ['pack', '--json', '--pack-destination', directory], { cwd: ROOT });
  const [pack] = JSON.parse(stdout) as [Pack];
  return pack;
}

async function installNodes(directory: string): Promise<string> {
  const nodesIn = join(directory, 'nodes');
  await mkdir(nodesIn);
  const manifest = { private: true, dependencies: NODE_PACKAGES };
  await writeFile(join(nodesIn, 'package.json'), JSON.stringify(manifest));
  await run('npm', ['install', '--no-audit', '--no-fund'], { cwd: nodesIn, timeoutMs: 300_000 });
  return nodesIn;
}
