import type { AdmissionOutcome } from './vocabulary.js';

/**
 * What happens too often for an event each: plain numbers, read when somebody looks.
 * All of them only grow.
 */
export class NodeCounters {
  /** Application messages received and sent, in all. */
  messagesIn = 0;
  messagesOut = 0;
  /** Ticks of the heartbeat that came too late to be believed. */
  eventLoopVoids = 0;
  /** Set by who counts admissions. */
  onAdmission: ((outcome: AdmissionOutcome, durationMs: number, returned: boolean) => void) | undefined;
  /** Set by who wants every pong's round trip, in milliseconds. */
  onPong: ((latencyMs: number) => void) | undefined;
  /** Set by who wants the duration of every call to the store that was waited for, in milliseconds. */
  onStoreOperation: ((operation: string, durationMs: number) => void) | undefined;
}
