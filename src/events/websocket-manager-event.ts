import type { EndReason, RejectionReason } from './close-reason.js';
import type {
  AdmissionOutcome,
  BreakerState,
  CleanupLevel,
  CleanupOutcome,
  CleanupTrigger,
  Evidence,
  ZombieSignal,
} from './vocabulary.js';

/** One manager that a cleanup ended. */
export interface Eviction {
  readonly managerId: string;
  readonly reason: EndReason;
  readonly evidence: Evidence;
}

interface At {
  /** Milliseconds since 1970. */
  readonly at: number;
}

interface OfUser extends At {
  readonly userId: string;
}

interface OfManager extends OfUser {
  readonly managerId: string;
  readonly sessionKey: string | undefined;
}

/** A newcomer has a manager. */
export interface AdmittedEvent extends OfManager {
  readonly type: 'admitted';
  readonly outcome: AdmissionOutcome;
  /** From the factory being asked to its answer. */
  readonly durationMs: number;
  /** This session was evicted less than 30 s ago: perhaps needlessly. */
  readonly returned: boolean;
  /** The user's managers / limit, this one included. */
  readonly pressure: number;
}

/** A newcomer was refused. */
export interface RejectedEvent extends At {
  readonly type: 'rejected';
  readonly reason: RejectionReason;
  /** Absent while nobody knows who it is. */
  readonly userId: string | undefined;
  readonly durationMs: number;
  readonly retryAfterMs: number | undefined;
  /** Refused although somebody could have gone: the promise broken. */
  readonly lockout: boolean;
  /** For the log; never sent to the client. */
  readonly detail: string | undefined;
}

/** A connection is open and belongs to its manager. */
export interface AttachedEvent extends OfManager {
  readonly type: 'attached';
  readonly connectionId: string;
}

/** A connection is gone, or is no longer counted. */
export interface DetachedEvent extends OfManager {
  readonly type: 'detached';
  readonly connectionId: string;
  readonly reason: EndReason;
  /** Close code seen on the wire, where the connection closed by itself. */
  readonly code: number | undefined;
  /** The manager ended with it. */
  readonly managerEnded: boolean;
}

/**
 * A connection missed a probe. `recovered` follows when it sends a byte, `zombie_detected` when it is proven dead, or
 * `evicted` when an incoming connection at the limit takes its place.
 */
export interface SuspectedEvent extends OfManager {
  readonly type: 'suspected';
  readonly connectionId: string;
  readonly signal: ZombieSignal;
}

/** A suspect sent something after all. */
export interface RecoveredEvent extends OfManager {
  readonly type: 'recovered';
  readonly connectionId: string;
  readonly afterMs: number;
}

/** A connection is proven dead. */
export interface ZombieDetectedEvent extends OfManager {
  readonly type: 'zombie_detected';
  readonly connectionId: string;
  readonly evidence: Evidence;
  /** It was a suspect before: the suspicion is confirmed. */
  readonly wasSuspect: boolean;
  /** The session ends with it. With a session key, or another connection, it stays. */
  readonly managerEnds: boolean;
}

/** A manager was ended by us: its slot is free. */
export interface EvictedEvent extends OfManager, Eviction {
  readonly type: 'evicted';
  /** Absent where no cleanup level is behind it: an operator, an idle time-out. */
  readonly level: CleanupLevel | undefined;
  readonly trigger: CleanupTrigger | undefined;
  readonly createdAt: number;
}

/** A cleanup of one user ran. */
export interface CleanupFinishedEvent extends OfUser {
  readonly type: 'cleanup_finished';
  readonly level: CleanupLevel;
  readonly trigger: CleanupTrigger;
  readonly outcome: CleanupOutcome;
  readonly examined: number;
  readonly freed: number;
  readonly durationMs: number;
}

/** A scheduled sweep over everybody under pressure came to its end. */
export interface SweepFinishedEvent extends At {
  readonly type: 'sweep_finished';
  readonly users: number;
  readonly durationMs: number;
}

export interface BreakerChangedEvent extends OfUser {
  readonly type: 'breaker_changed';
  readonly from: BreakerState;
  readonly to: BreakerState;
}

/** More than half of the node's connections fell silent within one beat, or that is over. */
export interface SelfPreservationEvent extends At {
  readonly type: 'self_preservation';
  readonly active: boolean;
  readonly silent: number;
  readonly connections: number;
}

/** An application hook threw, rejected or hung. The process goes on. */
export interface HookFailedEvent extends At {
  readonly type: 'hook_failed';
  readonly hook: string;
  readonly error: unknown;
}

/** The store did not answer in time, or failed: this node decided alone. */
export interface StoreFailedEvent extends At {
  readonly type: 'store_failed';
  readonly operation: string;
  readonly error: unknown;
}

export interface DrainingEvent extends At {
  readonly type: 'draining';
  readonly phase: 'started' | 'finished';
  readonly connections: number;
  /** Connections that did not answer the close: terminated some seconds after it, or at the end. */
  readonly terminated: number;
}

/** Everything that happens. */
export type WebSocketManagerEvent =
  | AdmittedEvent
  | RejectedEvent
  | AttachedEvent
  | DetachedEvent
  | SuspectedEvent
  | RecoveredEvent
  | ZombieDetectedEvent
  | EvictedEvent
  | CleanupFinishedEvent
  | SweepFinishedEvent
  | BreakerChangedEvent
  | SelfPreservationEvent
  | HookFailedEvent
  | StoreFailedEvent
  | DrainingEvent;

type WithoutTime<T> = T extends unknown ? Omit<T, 'at'> : never;
/** An event as it is reported; the stream adds the time. */
export type ReportedEvent = WithoutTime<WebSocketManagerEvent>;
