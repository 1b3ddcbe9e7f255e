import { SetMetadata } from '@nestjs/common';

/** What a detector thinks; `undefined`: no opinion. */
export type DetectorOpinion = 'dead' | 'alive' | undefined;

/** A connection as a detector sees it. Durations are milliseconds. */
export interface DetectorView {
  readonly userId: string;
  readonly managerId: string;
  readonly connectionId: string;
  readonly sessionKey: string | undefined;
  /** Of the connection's own token. */
  readonly metadata: unknown;
  readonly openForMs: number;
  /** Since the last byte from the client. */
  readonly silentForMs: number;
  /** Since the last application message, either way. */
  readonly inactiveForMs: number;
  readonly missedPongs: number;
  readonly bufferedBytes: number;
}

/**
 * A further kind of evidence, of the application's own. Asked once a heartbeat for every connection, and by every
 * probe. `dead` proves the connection dead, `alive` acquits a suspect. A throw, a rejection or no answer in time
 * counts as no opinion.
 */
export interface ConnectionDetector {
  /** Names the evidence in events, logs and metrics. */
  readonly name: string;
  examine(connection: DetectorView): DetectorOpinion | Promise<DetectorOpinion>;
}

export const CONNECTION_DETECTOR_METADATA = 'nestjs-websocket-manager:connection-detector';

/**
 * Marks a provider as a {@link ConnectionDetector}; any number of them, in any module.
 *
 * @example
 * ```ts
 * @Injectable()
 * @WebSocketDetector()
 * export class SignedOutDetector implements ConnectionDetector {
 *   readonly name = 'signed_out';
 *   constructor(private readonly sessions: Sessions) {}
 *   async examine({ userId }: DetectorView) {
 *     return (await this.sessions.isSignedOut(userId)) ? 'dead' : undefined;
 *   }
 * }
 * ```
 */
export const WebSocketDetector = (): ClassDecorator => SetMetadata(CONNECTION_DETECTOR_METADATA, true);
