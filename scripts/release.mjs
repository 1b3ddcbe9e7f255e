// npm run release -- patch|minor|major|1.2.3
// Turns what CHANGELOG.md has under [Unreleased] into a version: the changelog, package.json and its lockfile, what the
// examples ask for, one commit, one tag. The tag, once pushed, is what .github/workflows/release.yml tests, packs and
// publishes with provenance.
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const changelogFile = `${root}CHANGELOG.md`;
const UNRELEASED = '## [Unreleased]';

const [step = ''] = process.argv.slice(2);
if (!/^(patch|minor|major|\d+\.\d+\.\d+(-[\w.]+)?)$/.test(step)) {
  stop(`npm run release -- ${step}: allowed are patch, minor, major, or a version like 1.2.3`);
}
const changes = git('status', '--porcelain');
if (changes) stop(`There are changes that are not committed:\n${changes}`);
const branch = git('rev-parse', '--abbrev-ref', 'HEAD');
if (branch !== 'main') stop(`On branch ${branch}: releases are made from main`);

const changelog = readFileSync(changelogFile, 'utf8');
const [before, after] = changelog.split(`${UNRELEASED}\n`);
if (after === undefined) stop(`CHANGELOG.md has no line "${UNRELEASED}"`);
const [notes] = after.split(/^## \[/m);
if (!/^- /m.test(notes)) stop(`CHANGELOG.md says nothing under "${UNRELEASED}"`);

npm('version', step, '--no-git-tag-version');
const { name, version } = JSON.parse(readFileSync(`${root}package.json`, 'utf8'));
const tag = `v${version}`;
if (git('tag', '--list', tag)) {
  git('checkout', '--', 'package.json', 'package-lock.json');
  stop(`${tag} has been released already`);
}
// Who copies an example gets this version.
for (const file of git('ls-files', 'examples/*package.json').split('\n').filter(Boolean)) {
  const example = readFileSync(root + file, 'utf8');
  writeFileSync(root + file, example.replace(new RegExp(`("${name}": )"[^"]*"`), `$1"^${version}"`));
}
const day = new Date().toISOString().slice(0, 10);
writeFileSync(changelogFile, `${before}${UNRELEASED}\n\n## [${version}] - ${day}\n${after}`);
git('commit', '--quiet', '--all', '--message', `Release ${version}`);
// Verbatim: a line that begins with # is a heading here, and no comment.
git('tag', '--annotate', tag, '--cleanup=verbatim', '--message', `${tag}\n\n${notes.trim()}`);
console.log(`${tag} is made. To publish it: git push --follow-tags`);

function git(...args) {
  return execFileSync('git', args, { cwd: root, encoding: 'utf8' }).trim();
}

function npm(...args) {
  execFileSync('npm', args, { cwd: root, stdio: ['ignore', 'ignore', 'inherit'] });
}

function stop(why) {
  console.error(why);
  process.exit(1);
}
