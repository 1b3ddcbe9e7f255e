import { execFileSync, spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';

const NOTES = '### Added\n\n- Something that somebody wants.';
const TODAY = new Date().toISOString().slice(0, 10);

/** A repository of its own, with the script and a changelog in it. */
function repository({ unreleased = NOTES } = {}) {
  const root = mkdtempSync(join(tmpdir(), 'release-'));
  onTestFinished(() => rmSync(root, { recursive: true }));
  mkdirSync(join(root, 'scripts'));
  cpSync('scripts/release.mjs', join(root, 'scripts/release.mjs'));
  const manifest = { name: 'released', version: '0.1.0' };
  writeFileSync(join(root, 'package.json'), JSON.stringify(manifest));
  const example = { name: 'example', dependencies: { released: '^0.1.0', other: '^0.1.0' } };
  mkdirSync(join(root, 'examples/one'), { recursive: true });
  writeFileSync(join(root, 'examples/one/package.json'), JSON.stringify(example, null, 2));
  const lockfile = { ...manifest, lockfileVersion: 3, packages: { '': manifest } };
  writeFileSync(join(root, 'package-lock.json'), JSON.stringify(lockfile));
  const changelog = `# Changelog\n\n## [Unreleased]\n\n${unreleased}\n\n## [0.1.0] - 2026-01-01\n\n- The first.\n`;
  writeFileSync(join(root, 'CHANGELOG.md'), changelog);
  const git = (...args: string[]) => execFileSync('git', args, { cwd: root, encoding: 'utf8' }).trim();
  git('init', '--quiet', '--initial-branch=main');
  git('config', 'user.name', 'test');
  git('config', 'user.email', 'test@localhost');
  git('add', '--all');
  git('commit', '--quiet', '--message', 'All');
  const release = (step: string) => spawnSync(process.execPath, ['scripts/release.mjs', step], { cwd: root });
  const read = (file: string) => readFileSync(join(root, file), 'utf8');
  return { root, git, release, read };
}

test('a release is a commit and a tag, with what the changelog says', () => {
  const { git, release, read } = repository();

  const { status, stderr } = release('minor');

  expect(status, String(stderr)).toBe(0);
  expect(JSON.parse(read('package.json')).version).toBe('0.2.0');
  expect(JSON.parse(read('package-lock.json')).version).toBe('0.2.0');
  const { dependencies } = JSON.parse(read('examples/one/package.json'));
  expect(dependencies).toEqual({ released: '^0.2.0', other: '^0.1.0' });
  expect(read('CHANGELOG.md')).toContain(
    `## [Unreleased]\n\n## [0.2.0] - ${TODAY}\n\n${NOTES}\n\n## [0.1.0]`,
  );
  expect(git('status', '--porcelain')).toBe('');
  expect(git('log', '-1', '--format=%s')).toBe('Release 0.2.0');
  expect(git('tag', '--list', '--format=%(contents)')).toBe(`v0.2.0\n\n${NOTES}`);
});

test.each([
  ['a version that is none', 'next', {}, /patch, minor, major/],
  ['nothing to tell', 'patch', { unreleased: '' }, /says nothing/],
])('%s is refused, and changes nothing', (_, step, setup, why) => {
  const { git, release } = repository(setup);

  const { status, stderr } = release(step);

  expect(status).toBe(1);
  expect(String(stderr)).toMatch(why);
  expect(git('status', '--porcelain')).toBe('');
  expect(git('tag', '--list')).toBe('');
});

test('a version that is out already is refused', () => {
  const { git, release } = repository();
  git('tag', 'v0.2.0');

  const { status, stderr } = release('minor');

  expect(status).toBe(1);
  expect(String(stderr)).toContain('v0.2.0 has been released already');
  expect(git('status', '--porcelain')).toBe('');
});

test('what is not committed is no part of a release', () => {
  const { root, release } = repository();
  writeFileSync(join(root, 'left-over'), '');

  const { status, stderr } = release('minor');

  expect(status).toBe(1);
  expect(String(stderr)).toContain('left-over');
});
