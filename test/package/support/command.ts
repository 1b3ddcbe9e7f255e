import { type ChildProcess, spawn } from 'node:child_process';
import { delimiter, dirname } from 'node:path';

export interface CommandOptions {
  readonly cwd: string;
  /** The `node` that it and its children find. Default: the one that runs this. */
  readonly node?: string;
  readonly timeoutMs?: number;
  /** A command that is expected to fail. */
  readonly mayFail?: boolean;
}

export interface Ran {
  readonly code: number | null;
  /** Standard output and error, as they came. */
  readonly output: string;
  /** Standard output alone. */
  readonly stdout: string;
}

const running = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of running) killTree(child);
});

/**
 * Runs what a user would type, as the user's shell would: nothing of the runner's own settings reaches it. With all of its
 * children it is gone after `timeoutMs`. To fail is an error that has all that it printed.
 */
export function run(command: string, args: readonly string[], options: CommandOptions): Promise<Ran> {
  const { cwd, node = process.execPath, timeoutMs = 120_000, mayFail = false } = options;
  const env = { ...environment(), PATH: dirname(node) + delimiter + process.env.PATH };
  const child = spawn(command, args, { cwd, env, detached: true, stdio: ['ignore', 'pipe', 'pipe'] });
  running.add(child);
  let output = '';
  let stdout = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output += text;
    stdout += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    output += text;
  });
  return new Promise((resolve, reject) => {
    const what = `${command} ${args.join(' ')}`;
    const timer = setTimeout(() => {
      killTree(child);
      reject(new Error(`not done within ${timeoutMs} ms: ${what}\n${output}`));
    }, timeoutMs);
    child.on('error', reject);
    child.on('close', (code) => {
      clearTimeout(timer);
      running.delete(child);
      if (code === 0 || mayFail) resolve({ code, output, stdout });
      else reject(new Error(`exit code ${code}: ${what}\n${output}`));
    });
  });
}

/** A group of its own, so that what a command has started goes with it. */
function killTree({ pid }: ChildProcess): void {
  try {
    if (pid !== undefined) process.kill(-pid, 'SIGKILL');
  } catch {
    // It has ended by itself.
  }
}

/** Set by `npm run` and by the test runner; the switches of npm that would hide what a user would see. */
const NOT_THE_USERS =
  /^(npm_(package|lifecycle|command|execpath|node_execpath)|npm_config_(local_prefix|force|legacy_peer_deps|strict_peer_deps|ignore_scripts)|INIT_CWD|VITEST|TEST$|NODE_ENV|NODE_OPTIONS|NODE_PATH)/i;

function environment(): NodeJS.ProcessEnv {
  const kept = Object.entries(process.env).filter(([name]) => !NOT_THE_USERS.test(name));
  return { ...Object.fromEntries(kept), NO_COLOR: '1' };
}
