/** The socket under a connection, as little of it as this package needs. Bytes count from the handshake on. */
export interface Transport {
  readonly state: 'open' | 'closing' | 'closed';
  /** Whether it is open as far as the WebSocket knows, which is cheap to ask; {@link state} looks at the socket too. */
  readonly isOpen: boolean;
  /** We are not reading at the moment, so silence says nothing. */
  readonly paused: boolean;
  /** Bytes that came in, whole frames or not. */
  readonly bytesRead: number;
  /** Bytes handed over for sending, those still waiting included. */
  readonly bytesWritten: number;
  /** Bytes of those that the kernel has not taken yet. */
  readonly bytesQueued: number;
  /** Bytes that the application has sent and that wait anywhere in this process. */
  readonly bufferedAmount: number;
  ping(): void;
  send(data: string): void;
  /** Starts the closing handshake. */
  close(code: number, reason: string): void;
  /** Drops the socket at once. Harmless when it is gone already. */
  terminate(): void;
  /** It has closed: nothing may lead from the socket, which Node keeps for a while, to the session that it was of. */
  letGo?(): void;
}
