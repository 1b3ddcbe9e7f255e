/** A ping of ours that nothing has come in after. */
export interface OpenPing {
  /** When it was handed to the socket. */
  readonly at: number;
  /** The bytes that had been handed over by then, its own included. */
  readonly mark: number;
  /** Bytes before it that the application of the peer had not read. */
  readonly underWay: number;
}

/** What a connection was asked and told since it was last heard, from the wire alone. */
export class WireRecord {
  /** When a byte last came in. */
  heardAt: number;
  /** Pings since then, oldest first. */
  private open: OpenPing[] = [];
  private output = 0;
  private seen = 0;
  /** Since when more than the limit has been waiting to be sent, if it still is. */
  overSince = Number.NEGATIVE_INFINITY;
  /** The event loop has not been round to the sockets since the application last sent something. */
  isInTurnOfSend = false;

  constructor(
    private readonly socket: { readonly bytesRead: number },
    private readonly clock: { now(): number; io(callback: () => void): void },
  ) {
    this.heardAt = clock.now();
  }

  /** Pings that nothing has come in after, oldest first. */
  get openPings(): readonly OpenPing[] {
    this.catchUp();
    return this.open;
  }

  /** Bytes of the application that were sent since a byte last came in. */
  get outputSinceHeard(): number {
    this.catchUp();
    return this.output;
  }

  notePing(mark: number, underWay: number): void {
    this.catchUp();
    this.open.push({ at: this.clock.now(), mark, underWay });
  }

  noteOutput(bytes: number): void {
    this.catchUp();
    this.output += bytes;
    this.isInTurnOfSend = true;
    this.clock.io(() => {
      this.isInTurnOfSend = false;
    });
  }

  /** To be called for every byte, or before anything that is noted after it. */
  catchUp(): void {
    const { bytesRead } = this.socket;
    if (bytesRead === this.seen) return;
    this.seen = bytesRead;
    this.heardAt = this.clock.now();
    this.open = [];
    this.output = 0;
  }
}
