import { CLEANUP_LEVELS, type CleanupLevel } from '../events/vocabulary.js';
import {
  type Assessment,
  type AssessmentRules,
  assess,
  type ManagerFacts,
  windowOf,
} from '../liveness/assessment.js';

/** A manager that a cleanup looks at. */
export type Candidate = Assessment;

/** A manager that may go, and why. */
export interface Choice {
  readonly managerId: string;
  /** Names the evidence. */
  readonly signal: 'inactive' | 'missed_probe' | 'idle' | 'least_valuable';
  /** Somebody may be using it: it costs the user's budget of forced evictions. */
  readonly living: boolean;
}

export interface Thresholds {
  readonly proactiveThreshold: number;
  readonly moderateThreshold: number;
  readonly aggressiveThreshold: number;
}

/** What the level in the background depends on. */
export interface UserPressure {
  /** Managers / limit. */
  readonly pressure: number;
  /** False with a limit below four slots. */
  readonly hasThresholds: boolean;
}

/** The share of its resume window that a level leaves to a session without a connection. */
const WINDOW_SHARE: Record<CleanupLevel, number> = {
  conservative: 1,
  moderate: 0.5,
  aggressive: 0.25,
  force: 0.25,
};

export function candidatesOf(
  managers: Iterable<ManagerFacts>,
  now: number,
  rules: AssessmentRules,
): Candidate[] {
  return Array.from(managers, (manager) => assess(manager, now, rules));
}

/**
 * Returns the level that a user's pressure selects in the background; undefined: none. Thresholds are reached at `>=`.
 * Without thresholds there is none: the heartbeat and the resume windows end dead and disconnected sessions by themselves.
 */
export function levelFor(
  { pressure, hasThresholds }: UserPressure,
  thresholds: Thresholds,
): CleanupLevel | undefined {
  if (!hasThresholds) return undefined;
  if (pressure >= thresholds.aggressiveThreshold) return 'aggressive';
  if (pressure >= thresholds.moderateThreshold) return 'moderate';
  if (pressure >= thresholds.proactiveThreshold) return 'conservative';
  return undefined;
}

export function reaches(level: CleanupLevel, other: CleanupLevel): boolean {
  return CLEANUP_LEVELS.indexOf(level) >= CLEANUP_LEVELS.indexOf(other);
}

/** Sessions whose resume window is over by the measure of the level: all of them go, background or not. */
export function overdue(
  candidates: readonly Candidate[],
  level: CleanupLevel,
  now: number,
  rules: AssessmentRules,
): Choice[] {
  return candidates
    .filter(({ inactiveSince, manager }) => {
      if (inactiveSince === undefined) return false;
      return now >= inactiveSince + windowOf(manager, rules) * WINDOW_SHARE[level];
    })
    .sort(by(({ inactiveSince }) => inactiveSince ?? now))
    .map(({ manager }) => ({ managerId: manager.id, signal: 'inactive', living: false }));
}

/**
 * Who a level gives up for a newcomer at the limit, beyond what it takes anyway, in the order in which they go.
 * Exactly as many are taken as are needed.
 */
export function expendable(
  candidates: readonly Candidate[],
  level: CleanupLevel,
  now: number,
  rules: AssessmentRules,
): Choice[] {
  // Somebody may have left, or fallen silent, since a lower level looked: they still go before the living.
  const unsuspected = candidates.filter(({ suspect }) => !suspect);
  switch (level) {
    case 'conservative':
      return [];
    case 'moderate':
      return [...inactiveInWindow(candidates), ...idle(candidates, now, 2 * rules.idleAfterMs)];
    case 'aggressive':
      return [
        ...inactiveInWindow(candidates),
        ...suspects(candidates),
        ...idle(unsuspected, now, rules.idleAfterMs),
      ];
    case 'force':
      return [
        ...inactiveInWindow(candidates),
        ...suspects(candidates),
        ...leastValuable(unsuspected, now, rules),
      ];
  }
}

/**
 * When somebody is out of their grace, if all of the living are in it; 0 if somebody is. `tooMany` of them may end before
 * then without a place coming free, as after a limit was lowered: it has to be true of who is left, too.
 */
export function graceLeftMs(
  candidates: readonly Candidate[],
  tooMany: number,
  now: number,
  rules: AssessmentRules,
): number {
  const oldestFirst = candidates.map(({ manager }) => now - manager.createdAt).sort((a, b) => b - a);
  const age = oldestFirst[Math.max(0, tooMany)] ?? 0;
  return Math.max(0, rules.graceMs - Math.max(0, age));
}

function inactiveInWindow(candidates: readonly Candidate[]): Choice[] {
  return candidates
    .filter(({ status }) => status === 'inactive')
    .sort(by(({ inactiveSince }) => inactiveSince ?? 0))
    .map(({ manager }) => ({ managerId: manager.id, signal: 'inactive', living: false }));
}

function suspects(candidates: readonly Candidate[]): Choice[] {
  return candidates
    .filter(({ suspect }) => suspect)
    .sort(
      by(
        // An answer may still wait behind the output.
        ({ hasOutputUnderWay }) => Number(hasOutputUnderWay),
        ({ silentForMs }) => -silentForMs,
      ),
    )
    .map(({ manager }) => ({ managerId: manager.id, signal: 'missed_probe', living: false }));
}

function idle(candidates: readonly Candidate[], now: number, leastMs: number): Choice[] {
  return candidates
    .filter(({ status, manager }) => status === 'idle' && now - manager.lastActivityAt >= leastMs)
    .sort(
      by(
        ({ manager }) => Number(manager.isBusy),
        ({ manager }) => manager.lastActivityAt,
      ),
    )
    .map(({ manager }) => ({ managerId: manager.id, signal: 'idle', living: true }));
}

function leastValuable(candidates: readonly Candidate[], now: number, rules: AssessmentRules): Choice[] {
  return candidates
    .filter(({ status, manager }) => status !== 'inactive' && now - manager.createdAt >= rules.graceMs)
    .sort(
      by(
        ({ manager }) => manager.priority,
        ({ status }) => (status === 'idle' ? 0 : 1),
        ({ manager }) => Number(manager.isBusy),
        ({ manager }) => manager.lastActivityAt,
        ({ manager }) => manager.createdAt,
      ),
    )
    .map(({ manager }) => ({ managerId: manager.id, signal: 'least_valuable', living: true }));
}

/** Orders by the first key that differs, smallest first. */
function by(...keys: ((candidate: Candidate) => number)[]) {
  return (a: Candidate, b: Candidate): number => {
    for (const key of keys) {
      const difference = key(a) - key(b);
      if (difference !== 0) return difference;
    }
    // No order of arrival may decide.
    return a.manager.id < b.manager.id ? -1 : 1;
  };
}
