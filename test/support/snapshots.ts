import type { AssessmentRules, ConnectionFacts, ManagerFacts } from '../../src/liveness/assessment.js';

export const NOW = 10_000_000;

export const RULES: AssessmentRules = {
  idleAfterMs: 300_000,
  graceMs: 5_000,
  resumeWindowMs: 30_000,
  missedBeforeZombie: 2,
  lookMs: 3_750,
  maxBufferedBytes: 1_000_000,
};

export function aConnection(more: Partial<ConnectionFacts> = {}): ConnectionFacts {
  return {
    id: 'connection',
    state: 'open',
    openedAt: NOW - 60_000,
    lastHeardAt: NOW - 1_000,
    confirmed: true,
    missedPongs: 0,
    askedForMs: 1e9,
    stalledLooks: 0,
    suspectedAt: undefined,
    quietLooks: 0,
    hasUnacknowledgedOutput: false,
    unreadBytes: 0,
    detectedBy: undefined,
    bufferedBytes: 0,
    ...more,
  };
}

/** Healthy, one minute old, active now, unless told otherwise. */
export function aManager(more: Partial<ManagerFacts> = {}): ManagerFacts {
  return {
    id: 'manager',
    sessionKey: undefined,
    priority: 0,
    isBusy: false,
    createdAt: NOW - 60_000,
    lastActivityAt: NOW,
    leftAt: undefined,
    lastHeardAt: undefined,
    neverAttached: false,
    connections: [aConnection()],
    ...more,
  };
}

/** The same numbers from 0 to 1 for the same seed. */
export function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state * 48_271) % 2_147_483_647;
    return state / 2_147_483_647;
  };
}

export function shuffled<T>(items: readonly T[], random: () => number): T[] {
  const result = [...items];
  for (let i = result.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [result[i], result[j]] = [result[j] as T, result[i] as T];
  }
  return result;
}
