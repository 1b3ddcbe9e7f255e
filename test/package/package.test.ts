import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, inject, it } from 'vitest';
import limits from './limits.json' with { type: 'json' };
import { run } from './support/command.js';
import { EXAMPLES, PACKAGE } from './support/workspace.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

describe('what npm pack makes', () => {
  const packed = inject('packed');
  let unpacked: string;

  beforeAll(async () => {
    await run('tar', ['xzf', packed.tarball], { cwd: packed.directory });
    unpacked = join(packed.directory, 'package');
  });

  it('is the two builds, their types, and what describes them', () => {
    const others = packed.files.filter((path) => !/^dist\/.+\.(js|d\.ts)$/.test(path));
    expect(others.toSorted()).toEqual([
      'CHANGELOG.md',
      'LICENSE',
      'README.md',
      'dist/cjs/package.json',
      'package.json',
    ]);
    expect(packed.files.filter((path) => /reference-app|main\.|test|spec|\.map$/.test(path))).toEqual(
      packed.files.filter((path) => /^dist\/(cjs\/)?testing\//.test(path)),
    );
    for (const path of packed.files.filter((one) => one.endsWith('.js'))) {
      expect(packed.files).toContain(path.replace(/\.js$/, '.d.ts'));
    }
  });

  it('is as small as it was', () => {
    expect(packed.files.length).toBeLessThanOrEqual(limits.files);
    expect(packed.packedBytes).toBeLessThanOrEqual(limits.packedBytes);
    expect(packed.unpackedBytes).toBeLessThanOrEqual(limits.unpackedBytes);
  });

  it('depends on nothing but its peers, and runs nothing when it is installed', async () => {
    const manifest = JSON.parse(await readFile(join(unpacked, 'package.json'), 'utf8'));
    expect(manifest.dependencies).toBeUndefined();
    for (const script of ['preinstall', 'install', 'postinstall', 'prepare']) {
      expect(manifest.scripts).not.toHaveProperty(script);
    }
  });

  it('is the version that the examples ask for', async () => {
    const { version } = JSON.parse(await readFile(join(unpacked, 'package.json'), 'utf8'));
    for (const example of ['nest-11', 'nest-12', 'applications/nest-11', 'applications/nest-12']) {
      const manifest = JSON.parse(await readFile(join(EXAMPLES, example, 'package.json'), 'utf8'));
      expect(manifest.dependencies[PACKAGE]).toBe(`^${version}`);
    }
  });

  it('names no folder of the machine that built it', async () => {
    const { code, output } = await run('grep', ['-rlF', ROOT, unpacked], { cwd: ROOT, mayFail: true });
    expect([code, output]).toEqual([1, '']);
  });

  it('is what publint would publish', async () => {
    const { output } = await run('npx', ['--no', 'publint', packed.tarball, '--strict'], { cwd: ROOT });
    expect(output).toContain('All good!');
  });

  it('has types that are right for every way to resolve them', async () => {
    const { output } = await run('npx', ['--no', 'attw', packed.tarball], { cwd: ROOT });
    expect(output).toContain('No problems found');
  });
});
