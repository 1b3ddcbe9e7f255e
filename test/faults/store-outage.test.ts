import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';

const SCRIPT = fileURLToPath(new URL('../support/store-outage.mjs', import.meta.url));
const MANAGERS = 100_000;
/** Calls in flight for the whole node; a call that failed keeps its place for a tenth of a second. */
const PLACES = 64;

interface Outcome {
  readonly lagP99Ms: number;
  readonly cpuPercent: number;
  readonly callsPerSecond: number;
  readonly mostOpen: number;
  readonly bytesEach: number;
  readonly left: number;
  readonly status: string;
}

async function outage(how: string): Promise<Outcome> {
  const args = ['--expose-gc', SCRIPT, `${MANAGERS}`, how];
  const { stdout } = await promisify(execFile)(process.execPath, args, { timeout: 110_000 });
  console.log(stdout.trim());
  return JSON.parse(stdout) as Outcome;
}

describe(`${MANAGERS} closes while the store is unavailable`, () => {
  it.each(['rejects', 'throws', 'hangs'])('cost little, and are told when it is back (%s)', async (how) => {
    const { lagP99Ms, cpuPercent, callsPerSecond, mostOpen, bytesEach, left, status } = await outage(how);
    expect(lagP99Ms).toBeLessThan(20);
    expect(cpuPercent).toBeLessThan(25);
    expect(callsPerSecond).toBeLessThanOrEqual(11 * PLACES);
    expect(mostOpen).toBeLessThanOrEqual(PLACES);
    expect(bytesEach).toBeLessThan(1_000);
    expect([left, status]).toEqual([0, 'up']);
  });
});
