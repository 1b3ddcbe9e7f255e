/** How a manager is: see `assess` for the rules and `score` for the number beside it. */
export type ManagerStatus = 'healthy' | 'idle' | 'zombie' | 'inactive' | 'unknown';

export const MANAGER_STATUSES: readonly ManagerStatus[] = [
  'healthy',
  'idle',
  'zombie',
  'inactive',
  'unknown',
];

/** How far a cleanup goes; each level takes what the one before it takes. */
export const CLEANUP_LEVELS = ['conservative', 'moderate', 'aggressive', 'force'] as const;
export type CleanupLevel = (typeof CLEANUP_LEVELS)[number];

/** Why a cleanup ran. */
export type CleanupTrigger = 'admission' | 'proactive' | 'scheduled' | 'manual';

/**
 * How it went: something was freed; nothing had to go; everybody was protected, by the budget or by the grace;
 * something had to go, could have gone, and did not; an application hook threw or hung; or nothing was to be done.
 */
export type CleanupOutcome =
  | 'freed'
  | 'nothing_to_do'
  | 'all_protected'
  | 'nothing_freed'
  | 'hooks_failed'
  | 'dry_run';

/** What became of a newcomer that was let in. */
export type AdmissionOutcome = 'admitted' | 'joined' | 'admitted_after_cleanup';

/**
 * The built-in kinds of evidence against a connection; an application's detectors add their own names. A missed probe
 * makes a suspect and proves nothing; each of the others proves the connection dead.
 */
export type ZombieSignal =
  | 'missed_probe'
  | 'missed_pongs'
  | 'closed_socket'
  | 'stalled_output'
  | 'never_completed'
  | (string & {});

/** What a verdict rests on. */
export interface Evidence {
  /** A zombie signal, or why a living or absent session was chosen: `inactive`, `idle`, `least_valuable`, ... */
  readonly signal: string;
  /** Milliseconds since the last byte from the client, also of a session without a connection. */
  readonly silentForMs: number;
  /** Milliseconds since the last application message, either way. */
  readonly inactiveForMs: number;
  readonly missedPongs: number;
}

export type BreakerState = 'closed' | 'open' | 'half-open';
