import { cp, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import { connect, refusal } from '../support/client.js';
import { startServer } from '../support/server.js';
import { Applications, DRIVES, expectQuiet, type Major } from './drives.js';
import lowest from './lowest.json' with { type: 'json' };
import { MESSAGES } from './messages.js';
import { run } from './support/command.js';
import { get } from './support/http.js';
import { install, lowestNode, nodes, PACKAGE, tsc } from './support/workspace.js';

const OPTIONAL = ['@nestjs/terminus', '@nestjs/schedule', 'prom-client', '@nestjs/config'];

/** Ways in which an application may have its types resolved, beside the one in its own tsconfig.json. */
const RESOLUTIONS = {
  11: [
    ['node10', '--module', 'commonjs', '--moduleResolution', 'node10'],
    ['nodenext', '--module', 'nodenext', '--moduleResolution', 'nodenext'],
    ['bundler', '--module', 'preserve', '--moduleResolution', 'bundler'],
  ],
  12: [
    ['nodenext', '--module', 'nodenext', '--moduleResolution', 'nodenext'],
    ['bundler', '--module', 'preserve', '--moduleResolution', 'bundler'],
  ],
} as const;

/** Builds the examples of one major of Nest from the packed package, and drives them with each Node. */
export function tryMajor(major: Major): void {
  describe(`Nest ${major}`, () => {
    let example: string;
    let applications: string;

    beforeAll(async () => {
      example = await install(`nest-${major}`, [`nest-${major}`]);
      applications = await install(`applications-${major}`, ['applications', `applications/nest-${major}`]);
      for (const cwd of [example, applications]) await run('npm', ['run', 'build'], { cwd });
    }, 600_000);

    describe.each(nodes())('Node %s', (_version, node) => {
      let running: Applications;

      beforeAll(() => {
        running = new Applications(major, applications, node);
      });
      afterEach(() => running.stopAll());

      it('an application with none of the optional packages', async () => {
        const server = await startServer({}, { cwd: example, node });
        try {
          const as = (user: string) => ({ headers: { authorization: `Bearer token-of-${user}` } });
          const url = server.socketUrl({}, '/chat');
          expect((await refusal(url, as('mallory'))).status).toBe(401);
          const [alice, bob] = [await connect(url, as('alice')), await connect(url, as('bob'))];
          alice.send('say', 'hello');
          expect(await bob.next()).toEqual({ event: 'said', data: { by: 'alice', text: 'hello' } });
          expect((await get(`${server.url}/presence/alice`)).body).toEqual({ sessions: 1, lastLeft: null });
          server.signal('SIGTERM');
          expect(await bob.closed()).toEqual({ code: 1012, reason: 'draining' });
          expectQuiet(await server.exited);
        } finally {
          await server.stop();
        }
      });

      it(`its own tests, with ${PACKAGE}/testing`, async () => {
        const { output } = await run('npm', ['test'], { cwd: example, node });
        expect(output).toMatch(/Tests:? +6 passed/);
        expect(output).not.toMatch(/open handle|did not exit|Warning/);
      });

      it('import and require give the same classes, whichever comes first', async () => {
        const first = `import('${PACKAGE}')`;
        const second = `require('${PACKAGE}')`;
        for (const [a, b] of [
          [first, second],
          [second, first],
        ]) {
          const script = `(async () => {
            const [a, b] = [await ${a}, await ${b}];
            console.log(a.WebSocketManagerModule === b.WebSocketManagerModule && a.Clock === b.Clock);
          })()`;
          const args = ['--input-type=commonjs', '-e', script];
          const { stdout } = await run(node, args, { cwd: applications });
          expect(stdout.trim()).toBe('true');
        }
      });

      it.each([...DRIVES, MESSAGES])('%s', async (_title, drive) => {
        await drive(running);
      });
    });

    describe.each([lowestNode()])('Node %s', (_version, node) => {
      it('the lowest versions of Nest, RxJS, prom-client and Node 22', async () => {
        const folders = ['applications', `applications/nest-${major}`];
        const workspace = await install(`lowest-${major}`, folders, lowest[major]);
        // Compiled by the newest, as RxJS had no types for every way to resolve them then.
        await cp(join(applications, 'dist'), join(workspace, 'dist'), { recursive: true });
        const running = new Applications(major, workspace, node);
        try {
          for (const [, drive] of DRIVES) await drive(running);
        } finally {
          await running.stopAll();
        }
      }, 300_000);
    });

    it('`npm install` brings nothing that was not asked for', async () => {
      for (const name of OPTIONAL) {
        await expect(readFile(join(example, 'node_modules', name, 'package.json'))).rejects.toThrow('ENOENT');
      }
      const { output } = await run('npm', ['ls', '--all'], { cwd: example });
      expect(output).not.toMatch(/invalid|UNMET DEPENDENCY/);
    });

    it.each(RESOLUTIONS[major])(
      'types without skipLibCheck and without the optional packages: %s',
      async (_title, ...options) => {
        await tsc(example, '--noEmit', '--strict', '--skipLibCheck', 'false', ...options);
      },
    );

    it('which package the health routes need is said where the application can hear it', async () => {
      const script = `
        require('reflect-metadata');
        const { NestFactory } = require('@nestjs/core');
        const { WebSocketManagerModule } = require('${PACKAGE}');
        const module = WebSocketManagerModule.forRoot({ authenticate: () => null, health: true });
        setTimeout(() => NestFactory.create(module, { logger: false, abortOnError: false }).then(
          () => console.log('it boots'),
          (error) => console.log(error.message),
        ), 200);
      `;
      const { stdout } = await run(process.execPath, ['--input-type=commonjs', '-e', script], {
        cwd: example,
      });
      expect(stdout.trim()).toBe(
        'WebSocketManagerModule: health: got true; allowed: true where @nestjs/terminus is installed',
      );
    });
  });
}
