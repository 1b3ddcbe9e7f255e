import type { CleanupLevel } from '../events/vocabulary.js';
import type { Eviction } from '../events/websocket-manager-event.js';
import { type AssessmentRules, evidenceOf, type ManagerFacts, proofOf } from '../liveness/assessment.js';
import { reasonOf } from './cleanup-run.js';
import { type Candidate, expendable, overdue } from './policy.js';

/** What an operator's cleanup would do on the evidence in hand, without a probe; nothing is done. */
export function rehearsal(
  candidates: readonly Candidate[],
  level: CleanupLevel,
  count: number,
  now: number,
  rules: AssessmentRules,
): Eviction[] {
  const evidence = (manager: ManagerFacts, signal: string) => evidenceOf(manager, signal, now, rules);
  const ended = candidates.flatMap(({ status, manager }): Eviction[] => {
    const last = manager.connections.at(-1);
    if (status !== 'zombie' || manager.sessionKey !== undefined || !last) return [];
    const signal = proofOf(last, rules) ?? 'missed_pongs';
    return [{ managerId: manager.id, reason: 'no_pong', evidence: evidence(manager, signal) }];
  });
  const rest = candidates
    .filter(({ manager }) => !ended.some(({ managerId }) => managerId === manager.id))
    .map((candidate) => (candidate.status === 'zombie' ? left(candidate, now) : candidate));
  const sure = overdue(rest, level, now, rules);
  const others = rest.filter(({ manager }) => !sure.some(({ managerId }) => managerId === manager.id));
  const forced = level === 'force' ? expendable(others, 'force', now, rules).slice(0, count) : [];
  const chosen = [...sure, ...forced].map(({ managerId, signal }): Eviction => {
    const { manager } = rest.find((candidate) => candidate.manager.id === managerId) as Candidate;
    return { managerId, reason: reasonOf(signal), evidence: evidence(manager, signal) };
  });
  return [...ended, ...chosen];
}

/** With a session key, a dead one stays for its resume window, which begins with the end of its connections. */
function left(candidate: Candidate, now: number): Candidate {
  return { ...candidate, status: 'inactive', suspect: false, inactiveSince: now };
}
