import { spawn } from 'node:child_process';
import { mkdtemp, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, inject, it, onTestFinished, vi } from 'vitest';
import { connect, refusal } from '../support/client.js';
import { Server } from '../support/server.js';
import { expectPoliteEnd, freePort, type Major } from './drives.js';
import { run } from './support/command.js';
import { nodes, PACKAGE } from './support/workspace.js';

const README = fileURLToPath(new URL('../../README.md', import.meta.url));
const NEW = ['nest', 'new', 'fresh', '--skip-git', '--skip-install', '--package-manager', 'npm'];
/** `nest new` asks which of the two Nest 12 is to be; this is how the other answer reaches its schematics. */
const NEW_COMMONJS = ['schematics', '@nestjs/schematics:application', '--name=fresh', '--type=cjs'];

/** With which Node: the CLI of 12 wants 22, and Jest can load Nest 12, which is ESM, from 24.9 on. */
const FRESH: readonly [title: string, major: Major, node: number, make: readonly string[]][] = [
  ['`nest new`: CommonJS, Jest', 11, 20, NEW],
  ['`nest new`: ESM, Vitest', 12, 22, NEW],
  ['`nest new`: CommonJS, Jest', 12, 24, NEW_COMMONJS],
];

const GATEWAY = `
import { MessageBody, SubscribeMessage, WebSocketGateway } from '@nestjs/websockets';
import { CurrentManager, type Manager } from '${PACKAGE}';

@WebSocketGateway({ path: '/chat' })
export class ChatGateway {
  @SubscribeMessage('greet')
  greet(@MessageBody() greeting: string, @CurrentManager() manager: Manager) {
    return { event: 'greeting', data: greeting + ', ' + manager.userId };
  }
}
`;

/** What the ten lines leave to the application. */
const USERS = `
export function userOf({ url = '/' }: import('node:http').IncomingMessage): string {
  return new URL(url, 'ws://localhost').searchParams.get('userId') ?? '';
}
`;

const SPEC = `
import { Test } from '@nestjs/testing';
import { FakeClock, overrideWebSocketManager } from '${PACKAGE}/testing';
import { WebSocketManagerService } from '${PACKAGE}';
import { AppModule } from './app.module.js';

describe('the application', () => {
  it('lets nobody in for whom it has no place, on a clock of the test', async () => {
    const clock = new FakeClock();
    const builder = Test.createTestingModule({ imports: [AppModule] });
    const testing = await overrideWebSocketManager(builder, { clock }).compile();
    const app = testing.createNestApplication({ logger: false });
    await app.listen(0, '127.0.0.1');
    await clock.advance(60_000);
    expect(app.get(WebSocketManagerService).managersOf('alice')).toEqual([]);
    await app.close();
  });
});
`;

/** Those of the README, for this major: what a user types. */
async function installCommands(major: Major): Promise<string[]> {
  const [, section = ''] = /## Install\n(.*?)\n## /s.exec(await readFile(README, 'utf8')) ?? [];
  const commands = [...section.matchAll(/^# Nest (\d+)\n(npm install .*)$/gm)];
  return commands.filter(([, ofMajor]) => Number(ofMajor) === major).map(([, , command = '']) => command);
}

/** The ten lines of the README. */
async function tenLines(): Promise<string> {
  const [, code = ''] =
    /## Ten lines that work\n+```ts\n(.*?)```/s.exec(await readFile(README, 'utf8')) ?? [];
  return code;
}

async function tryFresh(major: Major, node: string, make: readonly string[]): Promise<void> {
  const { directory, tarball } = inject('packed');
  const parent = await mkdtemp(join(directory, 'new-'));
  const cwd = join(parent, 'fresh');
  const type = (line: string, timeoutMs?: number) => {
    const [command = '', ...args] = line.split(' ');
    return run(command, args, { cwd, node, ...(timeoutMs === undefined ? {} : { timeoutMs }) });
  };
  await run('npx', ['-y', '-p', `@nestjs/cli@${major}`, ...make], { cwd: parent, node, timeoutMs: 240_000 });
  await type('npm install', 300_000);
  const commands = await installCommands(major);
  expect(commands).toHaveLength(2);
  for (const command of commands) await type(command.replace(PACKAGE, tarball), 240_000);

  const manifest = JSON.parse(await readFile(join(cwd, 'package.json'), 'utf8'));
  const add = async (file: string, code: string) => {
    // As the application's own files import one another.
    const text = manifest.type === 'module' ? code : code.replace(/(from '\.\/.*)\.js'/g, "$1'");
    await writeFile(join(cwd, 'src', file), text);
  };
  await add('app.module.ts', await tenLines());
  await add('users.ts', USERS);
  await add('chat.gateway.ts', GATEWAY);
  const own = manifest.devDependencies.vitest ? "import { describe, expect, it } from 'vitest';\n" : '';
  await add('chat.spec.ts', own + SPEC);
  await type('npm run build');
  const { output } = await type('npm test');
  expect(output).toMatch(/Tests:? +2 passed/);

  const port = await freePort();
  const env = { PATH: process.env.PATH, NO_COLOR: '1', PORT: `${port}` };
  const server = new Server(spawn(node, ['dist/main.js'], { cwd, env }));
  onTestFinished(async () => void (await server.stop()));
  server.url = `http://127.0.0.1:${port}`;
  const url = server.socketUrl({ userId: 'alice' }, '/chat');
  // It does not say when it listens.
  const alice = await vi.waitFor(() => connect(url), { timeout: 20_000 });
  alice.send('greet', 'hello');
  expect(await alice.next()).toEqual({ event: 'greeting', data: 'hello, alice' });
  expect((await refusal(server.socketUrl({}, '/chat'))).status).toBe(401);
  await expectPoliteEnd(server, url);
}

const newest = (line: number) => nodes().findLast(([version]) => version.startsWith(`${line}.`));
const fresh = FRESH.flatMap(([title, major, line, make]) => {
  const [version, node] = newest(line) ?? [];
  return version && node ? [[title, major, version, node, make] as const] : [];
});

for (const [title, major, version, node, make] of fresh) {
  describe(`Nest ${major}`, () => {
    describe(`Node ${version}`, () => {
      it(title, () => tryFresh(major, node, make), 900_000);
    });
  });
}

it('is tried with every Node of the run that it is for', () => {
  const isQuick = inject('packed').nodesIn === undefined;
  const due = FRESH.filter(([, , line]) => !isQuick || process.versions.node.startsWith(`${line}.`));
  expect(fresh).toHaveLength(due.length);
});
