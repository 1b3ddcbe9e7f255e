import { inspect } from 'node:util';
import { printable } from './printable.js';

/** A request for one of a user's slots. */
export interface SlotRequest {
  readonly userId: string;
  /** Who will hold the slot. A second request for the same manager takes no second slot. */
  readonly managerId: string;
  readonly limit: number;
  readonly priority: number;
  /** A manager elsewhere whose slot is to be taken over: it leaves the count in the same step. */
  readonly insteadOf?: string | undefined;
}

/** A manager of the same user on another node, as far as the store knows it. Ages in milliseconds. */
export interface SlotHolder {
  readonly managerId: string;
  /** Its node has not been heard of lately, or said that the manager has no connection. */
  readonly suspect: boolean;
  readonly idle: boolean;
  readonly busy: boolean;
  readonly priority: number;
  readonly ageMs: number;
  readonly inactiveForMs: number;
}

export type SlotReply =
  /** `count`: the user's managers, this one included. */
  | { readonly granted: true; readonly count: number }
  | { readonly granted: false; readonly count: number; readonly elsewhere: readonly SlotHolder[] };

/** What a store may ask of the node that it serves. */
export interface SlotStoreHost {
  /** Managers of the user on this node. */
  countOf(userId: string): number;
  has(managerId: string): boolean;
  /** Another node has taken the manager's slot over: it ends here. */
  evict(managerId: string): void;
}

/**
 * Where slots are counted. `reserve` decides atomically, so that no two calls can take the last slot.
 *
 * A store may answer at once or later, be slow, or fail. An admission waits for `storeTimeoutMs` in all; after that
 * the node decides by its own count. An answer that is not one of {@link SlotReply}, or a refusal below the limit that was
 * asked for, counts as a failure.
 *
 * What the store must bear:
 * - Calls are idempotent: the same manager may reserve its slot again, and may release it again.
 * - A call may be repeated after a failure, and may arrive late. For each manager at most one call is in flight, and the
 *   last call is a `release`: an id is not reserved again after its release, so a store may ignore a `reserve` that
 *   arrives after it.
 * - A manager that was admitted while the store did not answer is reserved later. If that is refused, it is reserved
 *   again with a limit above the count of the answer, because the manager exists.
 * - For a user above the limit, an incoming connection that takes the place of a session asks with the count as limit.
 */
export interface SlotStore {
  /** For health, metrics and logs: `memory`, `redis`. */
  readonly name: string;
  /** Called once, before the first request. */
  attach(host: SlotStoreHost): void | Promise<void>;
  reserve(request: SlotRequest): SlotReply | Promise<SlotReply>;
  release(userId: string, managerId: string): void | Promise<void>;
  /** This node leaves: all of its slots are free. Repeated after a failure, until the drain's time is over. */
  leave(): void | Promise<void>;
}

/**
 * @internal
 * Checks a store's answer to `reserve`: a store is the application's own code, and an answer without a count would
 * become a decision about live sessions. So would a refusal of a slot below the limit.
 * @throws Error that names what was got and what is allowed
 */
export function checkReply(reply: unknown, limit: number): asserts reply is SlotReply {
  const { granted, count, elsewhere } = (reply ?? {}) as Record<string, unknown>;
  if (typeof granted !== 'boolean' || !isCount(count)) {
    throw invalid(reply, '{ granted: boolean, count: an integer >= 0 }');
  }
  if (granted) return;
  if ((count as number) < limit) {
    throw invalid(reply, `granted: true, or a count >= ${limit}, the limit that was asked for`);
  }
  if (elsewhere === undefined) return;
  if (!Array.isArray(elsewhere) || !elsewhere.every(isHolder)) {
    throw invalid(
      reply,
      'elsewhere: an array of { managerId: string, suspect, idle, busy: boolean, ' +
        'priority: number, ageMs, inactiveForMs: number >= 0 }, or absent',
    );
  }
}

function invalid(reply: unknown, allowed: string): Error {
  const got = printable(inspect(reply, { breakLength: Number.POSITIVE_INFINITY, depth: 2 }));
  return new Error(`store.reserve: got ${got}, expected ${allowed}`);
}

function isCount(count: unknown): boolean {
  return Number.isSafeInteger(count) && (count as number) >= 0;
}

function isHolder(value: unknown): value is SlotHolder {
  if (typeof value !== 'object' || value === null) return false;
  const { managerId, suspect, idle, busy, priority, ageMs, inactiveForMs } = value as Partial<SlotHolder>;
  return (
    typeof managerId === 'string' &&
    managerId !== '' &&
    [suspect, idle, busy].every((flag) => typeof flag === 'boolean') &&
    Number.isFinite(priority) &&
    [ageMs, inactiveForMs].every((ms) => Number.isFinite(ms) && (ms as number) >= 0)
  );
}
