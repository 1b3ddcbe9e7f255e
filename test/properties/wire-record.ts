/** A ping of ours that nothing has come in after. */
export interface OpenPing {
  /** When it was handed to the socket. */
  readonly at: number;
  /** The bytes that had been handed over by then, its own included. */
  readonly mark: number;
  /** Bytes before it that the application of the peer had not read. */
  readonly underWay: number;
  /** The most that can have been unread then by a peer that has always read 16 KiB a second. */
  readonly mostUnread: number;
}

/** Output of the last minutes may be unread; it extends the time for an answer. */
const RECENT_MS = 120_000;
const SLOWEST_BYTES_PER_MS = (16 * 1_024) / 1_000;

/** What a connection was asked and told since it was last heard, from the wire alone. */
export class WireRecord {
  /** When a byte last came in. */
  heardAt: number;
  /** Pings since then, oldest first. */
  private open: OpenPing[] = [];
  private output = 0;
  private sentAt = Number.NEGATIVE_INFINITY;
  private seen = 0;
  /** What a peer that reads 16 KiB a second may have left unread at a time. */
  private unread = { bytes: 0, at: 0 };
  /** Told of each byte that comes in after a ping: how long after the oldest one. */
  onAnswer: (afterMs: number) => void = () => {};
  /** Unsent bytes that make a slow consumer, where they do not move. */
  limit = Number.POSITIVE_INFINITY;
  /** Since when more than the limit has been waiting to be sent, if it still is. */
  overSince = Number.NEGATIVE_INFINITY;
  /** Unsent bytes before the first send of the turn. */
  private before = 0;
  /** The event loop has not been round to the sockets since the application last sent something. */
  isInTurnOfSend = false;

  constructor(
    private readonly socket: { readonly bytesRead: number; readonly bufferedAmount: number },
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

  /** The application has sent something since a byte last came in, or so much before that some of it may be unread. */
  get hadOutput(): boolean {
    this.catchUp();
    return this.output > 0 || this.sentAt > this.heardAt - RECENT_MS;
  }

  notePing(mark: number, underWay: number): void {
    this.catchUp();
    this.open.push({ at: this.clock.now(), mark, underWay, mostUnread: this.mostUnread });
  }

  /** Unsent bytes, without what was sent in this turn. */
  get bufferedBeforeTurn(): number {
    return this.isInTurnOfSend ? this.before : this.socket.bufferedAmount;
  }

  /** The application sends; `write` hands it to the socket. */
  noteOutput(bytes: number, write: () => void): void {
    this.catchUp();
    const { bufferedAmount } = this.socket;
    this.output += bytes;
    this.sentAt = this.clock.now();
    this.unread = { bytes: this.mostUnread + bytes, at: this.clock.now() };
    if (!this.isInTurnOfSend) {
      this.isInTurnOfSend = true;
      this.before = bufferedAmount;
      this.clock.io(() => {
        this.isInTurnOfSend = false;
      });
    }
    write();
    if (bufferedAmount <= this.limit && this.socket.bufferedAmount > this.limit)
      this.overSince = this.clock.now();
  }

  private get mostUnread(): number {
    const { bytes, at } = this.unread;
    return Math.max(0, bytes - SLOWEST_BYTES_PER_MS * (this.clock.now() - at));
  }

  /** To be called for every byte, or before anything that is noted after it. */
  catchUp(): void {
    const { bytesRead } = this.socket;
    if (bytesRead === this.seen) return;
    this.seen = bytesRead;
    this.heardAt = this.clock.now();
    const [first] = this.open;
    if (first) this.onAnswer(this.heardAt - first.at);
    this.open = [];
    this.output = 0;
  }
}
