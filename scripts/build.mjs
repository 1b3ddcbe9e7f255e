// npm run build
// The package in both module formats: dist/ for `import`, dist/cjs/ for `require`. The reference application is part of
// the first alone, and of no package.
import { execFileSync } from 'node:child_process';
import { rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';

const root = new URL('../', import.meta.url);
const tsc = createRequire(import.meta.url)
  .resolve('typescript/package.json')
  .replace('package.json', 'bin/tsc');

// So that no file of an earlier layout is served or tested.
rmSync(new URL('dist', root), { recursive: true, force: true });
for (const project of ['tsconfig.build.json', 'tsconfig.cjs.json']) {
  compile(project);
  // What editors show is in the declarations; beside them, the comments were a sixth of what is downloaded.
  compile(project, '--declaration', 'false', '--removeComments', '--noCheck');
}
writeFileSync(new URL('dist/cjs/package.json', root), '{ "type": "commonjs" }\n');

function compile(project, ...flags) {
  try {
    execFileSync(process.execPath, [tsc, '-p', project, ...flags], { cwd: root, stdio: 'inherit' });
  } catch (error) {
    // What is wrong has been said by the compiler.
    process.exit(error.status ?? 1);
  }
}
