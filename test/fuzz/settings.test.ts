import { describe, expect, it } from 'vitest';
import { resolveOptions, WebSocketManagerOptionsError } from '../../src/options/resolve-options.js';
import type { WebSocketManagerOptions } from '../../src/options/websocket-manager-options.interface.js';
import { EnvironmentError, validateEnvironment } from '../../src/reference-app/environment.js';
import { fuzzedEnvironment, fuzzedOptions } from '../support/fuzz-options.js';
import { cases, random } from '../support/fuzz-plan.js';

/** Whatever may end a line on a terminal, in a log or in JSON's elder brother. */
const ENDS_A_LINE = /[\p{Cc}\u2028\u2029]/u;
const MOST_CHARACTERS = 2_000;

const VARIABLES = [
  ...['PORT', 'HOST', 'WSM_AUTH', 'WSM_DEMO_ANYWHERE', 'WSM_JWT_SECRET', 'WSM_ADMIN_TOKEN', 'WSM_REDIS_URL'],
  ...['WSM_MANAGERS_PER_USER', 'WSM_MANAGERS_PER_NODE', 'WSM_CONNECTIONS_PER_MANAGER'],
  ...['WSM_MAX_PAYLOAD_BYTES', 'WSM_MAX_BUFFERED_BYTES', 'WSM_PROACTIVE_THRESHOLD', 'WSM_MODERATE_THRESHOLD'],
  ...['WSM_AGGRESSIVE_THRESHOLD', 'WSM_CLEANUP_INTERVAL_MS', 'WSM_IDLE_AFTER_MS', 'WSM_GRACE_MS'],
  ...['WSM_FORCED_EVICTION_BURST', 'WSM_FORCED_EVICTION_REFILL_MS', 'WSM_RESUME_WINDOW_MS'],
  ...['WSM_HEARTBEAT_INTERVAL_MS', 'WSM_HEARTBEAT_MISSED', 'WSM_PROBE_TIMEOUT_MS', 'WSM_REJECT_WITH'],
  ...['WSM_BREAKER_FAILURE_THRESHOLD', 'WSM_BREAKER_RESET_TIMEOUT_MS', 'WSM_QUEUE_TIMEOUT_MS'],
  ...['WSM_ALLOWED_ORIGINS', 'WSM_DRAIN_TIMEOUT_MS', 'WSM_DRAIN_SPREAD_MS'],
];

interface Complaint {
  readonly input: string;
  readonly wrong: string;
}

/** Tries them all; what is thrown has to be of the one class, and one line. */
function complaintsOf(
  count: number,
  Expected: new (...args: never[]) => Error,
  attempt: (i: number) => unknown,
): { complaints: Complaint[]; accepted: number } {
  const complaints: Complaint[] = [];
  let accepted = 0;
  for (let i = 0; i < count; i++) {
    const input = () => `case ${i}`;
    try {
      attempt(i);
      accepted++;
    } catch (error) {
      if (!(error instanceof Expected)) complaints.push({ input: input(), wrong: String(error) });
      else if (ENDS_A_LINE.test(error.message) || error.message.length > MOST_CHARACTERS)
        complaints.push({ input: input(), wrong: JSON.stringify(error.message) });
    }
  }
  return { complaints: complaints.slice(0, 5), accepted };
}

describe('options, whatever is given', () => {
  it('are taken, or refused with one error in one line', () => {
    const values = random.fork('options');
    const count = cases(0.35);
    const { complaints, accepted } = complaintsOf(count, WebSocketManagerOptionsError, () =>
      resolveOptions(fuzzedOptions(values) as WebSocketManagerOptions),
    );
    console.log(`fuzz: ${count} option objects, of which ${accepted} taken`);
    expect(complaints).toEqual([]);
    expect(accepted).toBeGreaterThan(count / 100);
    expect(accepted).toBeLessThan(count);
  });
});

describe('an environment, whatever is set', () => {
  it('is taken, or refused with one error in one line', () => {
    const values = random.fork('environments');
    const count = cases(0.15);
    const { complaints, accepted } = complaintsOf(count, EnvironmentError, () =>
      validateEnvironment(fuzzedEnvironment(values, VARIABLES)),
    );
    console.log(`fuzz: ${count} environments, of which ${accepted} taken`);
    expect(complaints).toEqual([]);
    expect(accepted).toBeGreaterThan(count / 100);
    expect(accepted).toBeLessThan(count);
  });
});
