/** The socket under a connection, as little of it as this package needs. Bytes count from the handshake on. */
export interface Transport {
  readonly state: 'open' | 'closing' | 'closed';
  /**
   * It sets `bytesCame` of its connection at whatever comes in, and clears `isCalm` when it begins to close or is not
   * read: while it is calm, nobody has to look at it to know.
   */
  readonly isAttentive?: boolean | undefined;
  /** We are not reading at the moment, so silence says nothing. */
  readonly paused: boolean;
  /** Bytes that came in, whole frames or not. */
  readonly bytesRead: number;
  /** Bytes handed over for sending, those still waiting included. */
  readonly bytesWritten: number;
  /** Bytes of those that the kernel has not taken yet, or that have still to be compressed. */
  readonly bytesQueued: number;
  /**
   * Bytes that the kernel has taken, of a write that is half done too, and in whatever unit: it only tells whether output
   * moves. Where it is unknown, {@link bytesWritten} less {@link bytesQueued} has to do.
   */
  readonly bytesTaken?: number | undefined;
  /** The kernel has taken all that it was given: what waits has still to be compressed, and does not wait for the peer. */
  readonly isDrained?: boolean | undefined;
  /** Bytes that the application has sent and that wait anywhere in this process. */
  readonly bufferedAmount: number;
  /** Sends a ping; `mark`, a byte that is not 0, comes back with its pong. */
  ping(mark?: number): void;
  send(data: string): void;
  /** Starts the closing handshake. */
  close(code: number, reason: string): void;
  /** Drops the socket at once. Harmless when it is gone already. */
  terminate(): void;
  /** It has closed: nothing may lead from the socket, which Node keeps for a while, to the session that it was of. */
  letGo?(): void;
}
