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
 * Where slots are counted. The one rule: `reserve` decides atomically, so that no two of them can take the last slot.
 *
 * A store may answer at once or later, be slow, or fail: the node bounds each call by `storeTimeoutMs` and decides
 * by its own count when there is no answer, because a store that is away must not lock anybody out. Calls are
 * idempotent: a slot may be reserved twice and released twice by the same manager.
 */
export interface SlotStore {
  /** For health, metrics and logs: `memory`, `redis`. */
  readonly name: string;
  /** Called once, before the first request. */
  attach(host: SlotStoreHost): void | Promise<void>;
  reserve(request: SlotRequest): SlotReply | Promise<SlotReply>;
  release(userId: string, managerId: string): void | Promise<void>;
  /** This node goes: all of its slots are free. */
  leave(): void | Promise<void>;
}
