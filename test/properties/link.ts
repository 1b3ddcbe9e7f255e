/** The rate of a link that is not limited: what one machine passes to itself. */
export const UNLIMITED_BYTES_PER_MS = 1_048_576;
/** Linux signals that a socket can be written when a third of its send buffer is free. */
const FREE_TO_SIGNAL = 1 / 3;
/** Fractions of a byte are rounding. */
const DUST = 1e-6;

/** What a direction of a link does with bytes. Rates in bytes per millisecond, sizes in bytes. */
export interface FlowLimits {
  /** Of the link. */
  readonly rate: number;
  /** Our kernel keeps so many bytes that the peer's kernel has not acknowledged. */
  readonly sendBuffer: number;
  /** The peer's kernel keeps so many bytes that its application has not read. */
  readonly receiveBuffer: number;
  /** Of the receiving application; 0: it does not read. */
  readonly readRate: number;
  /** Nothing passes. What was sent arrives later, in order. */
  readonly isCut: boolean;
}

/**
 * One direction of a TCP connection, as a fluid: bytes go from the queue of the process into the kernel's send buffer,
 * over the link into the receive buffer of the peer, and from there to its application. It is computed when it is
 * looked at, so a large download costs nothing between two looks.
 */
export class Flow {
  /** Handed over by the application. */
  written = 0;
  /** Of those, taken by the kernel. */
  taken = 0;
  /** Of those, in the receive buffer of the peer or read. */
  delivered = 0;
  /** Of those, read by the application of the peer. */
  read = 0;
  /** When the kernel last took a byte. */
  takenAt: number;
  /** When a write last did not fit while nothing else waited. */
  blockedAt = Number.NEGATIVE_INFINITY;
  /** When the kernel last had taken all of a write. */
  completedAt = Number.NEGATIVE_INFINITY;
  /** Node counts a write as queued until the kernel has taken all of it, and writes together what waited meanwhile. */
  private completed = 0;
  private batchEnd = 0;

  constructor(
    private now: number,
    private limits: FlowLimits,
  ) {
    this.takenAt = now;
  }

  /** Bytes of writes that are not complete, as Node's `writableLength`. */
  get queued(): number {
    return this.written - this.completed;
  }

  /** Since when the kernel has taken nothing of what waits. */
  get movedAt(): number {
    return Math.max(this.takenAt, this.blockedAt);
  }

  /** Bytes that the kernel has not taken. */
  get unsent(): number {
    return this.written - this.taken;
  }

  /** Bytes that the application of the peer has not read, wherever they are. */
  get underWay(): number {
    return this.written - this.read;
  }

  write(bytes: number, now: number): void {
    this.flow(now);
    const isBlocked = this.unsent > 0;
    if (this.queued === 0) this.batchEnd = this.written + bytes;
    this.written += bytes;
    if (isBlocked) return;
    this.take();
    if (this.unsent > 0) this.blockedAt = now;
  }

  change(limits: Partial<FlowLimits>, now: number): void {
    this.flow(now);
    this.limits = { ...this.limits, ...limits };
  }

  /** Computes the state at `now`. */
  flow(now: number): void {
    while (this.now < now) {
      const { sendBuffer, receiveBuffer } = this.limits;
      const { arriving, reading } = this.rates;
      const held = this.delivered - this.read;
      const signalAt = (1 - FREE_TO_SIGNAL) * sendBuffer;
      const inTransit = this.taken - this.delivered;
      const isBlocked = this.unsent > 0;
      const untilSent = arriving > 0 ? inTransit / arriving : Infinity;
      const untilSignal = isBlocked && arriving > 0 ? Math.max(0, inTransit - signalAt) / arriving : Infinity;
      const untilFull =
        arriving > reading ? Math.max(0, receiveBuffer - held) / (arriving - reading) : Infinity;
      const untilRead = reading > arriving ? held / (reading - arriving) : Infinity;
      const left = now - this.now;
      const passes = Math.min(left, untilSent, untilSignal, untilFull, untilRead);
      this.now = passes === left ? now : this.now + passes;
      this.delivered += arriving * passes;
      this.read += reading * passes;
      this.snap(passes === untilSent, passes === untilRead);
      if (isBlocked && this.taken - this.delivered <= signalAt + DUST) this.take();
    }
  }

  /** When the application of the peer will have read so many bytes, if nothing changes; `Infinity`: never. */
  whenRead(bytes: number, now: number): number {
    this.flow(now);
    if (this.read >= bytes - DUST) return now;
    const { rate, readRate, isCut } = this.limits;
    if (readRate === 0) return Infinity;
    const untilRead = now + (bytes - this.read) / readRate;
    if (this.delivered >= bytes - DUST) return untilRead;
    if (isCut || rate === 0) return Infinity;
    // The slower one of the two decides: the link never waits for our side, whose buffer is refilled in time.
    return Math.max(untilRead, readRate >= rate ? now + (bytes - this.delivered) / rate : now);
  }

  private get rates(): { arriving: number; reading: number } {
    const { rate, receiveBuffer, readRate, isCut } = this.limits;
    const held = this.delivered - this.read;
    let arriving = isCut || this.delivered >= this.taken - DUST ? 0 : rate;
    if (held >= receiveBuffer - DUST) arriving = Math.min(arriving, readRate);
    const reading = held > DUST ? readRate : Math.min(readRate, arriving);
    return { arriving, reading };
  }

  private snap(isSent: boolean, isRead: boolean): void {
    if (isSent || this.delivered > this.taken) this.delivered = this.taken;
    if (isRead || this.read > this.delivered) this.read = this.delivered;
  }

  private take(): void {
    const room = this.delivered + this.limits.sendBuffer;
    const taken = Math.min(this.written, Math.floor(room));
    if (taken <= this.taken) return;
    this.taken = taken;
    this.takenAt = this.now;
    if (this.taken >= this.batchEnd) {
      this.completed = this.batchEnd;
      this.completedAt = this.now;
      this.batchEnd = this.written;
      if (this.taken >= this.batchEnd) this.completed = this.batchEnd;
    }
  }
}

/** What a history says of a link. Rates in KiB per second, undefined: not limited; delays in milliseconds. */
export interface LinkConditions {
  readonly downRate: number | undefined;
  readonly upRate: number | undefined;
  /** One way. */
  readonly delayMs: number;
  /** Added to the delay, one after another, again and again. */
  readonly jitterMs: readonly number[];
}

export interface LinkBuffers {
  readonly sendBuffer: number;
  readonly receiveBuffer: number;
}

export type Direction = 'down' | 'up';

/** What comes in at our side: so many bytes, and what they complete. */
export interface Arrival {
  readonly bytes: number;
  readonly frame: (() => void) | undefined;
}

interface Upload {
  readonly end: number;
  readonly frame: (() => void) | undefined;
}

/** The part of the clock of a history that a link needs. */
interface LinkClock {
  now(): number;
  io(callback: () => void, ms?: number): void;
}

/** An upload is heard of at least so often while it goes on. */
const PROGRESS_MS = 50;
const LEAST_ROUND_TRIP_MS = 1;

/**
 * A TCP connection over a link with two directions: `down` is what we send, `up` what the peer sends. All of it arrives,
 * in order, however late.
 */
export class Link {
  readonly down: Flow;
  private conditions: LinkConditions;
  private readonly cut: Record<Direction, boolean> = { down: false, up: false };
  private reads = UNLIMITED_BYTES_PER_MS;
  /** Marks in what we send, oldest first, and what the peer does when it has read so far. */
  private readonly marks: { readonly at: number; readonly isRead: () => void }[] = [];
  private watched = 0;
  /** Bytes that the peer has handed over, and of those, what has passed the narrowest place of the link. */
  private uploaded = 0;
  private passed = 0;
  private passedAt: number;
  private readonly uploads: Upload[] = [];
  private reported = 0;
  private stepped = 0;
  /** Past the narrowest place, and on the way to us; what is due while nothing passes comes when the link is back. */
  private line: { readonly at: number; readonly arrival: Arrival }[] = [];
  private jittered = 0;
  /** Read marks on their way there: what the peer does then. */
  private readonly onTheirWay = new Set<() => void>();
  private isEnded = false;

  constructor(
    private readonly clock: LinkClock,
    conditions: LinkConditions,
    private readonly buffers: LinkBuffers,
    private readonly onArrival: (arrival: Arrival) => void,
  ) {
    this.conditions = conditions;
    this.passedAt = clock.now();
    this.down = new Flow(clock.now(), {
      ...buffers,
      rate: this.downRate,
      readRate: this.reads,
      isCut: false,
    });
  }

  /** One way, without jitter. */
  get delayMs(): number {
    return this.conditions.delayMs;
  }

  /** Bytes a millisecond that reach the application of the peer, while nothing is cut. */
  get readsPerMs(): number {
    return this.cut.down ? 0 : Math.min(this.downRate, this.reads);
  }

  isCut(direction: Direction): boolean {
    return this.cut[direction];
  }

  /** Something of the peer is under way. */
  get isUploading(): boolean {
    return this.reported < this.uploaded || this.line.length > 0;
  }

  /** The peer has read something that it will be told of. */
  get isAnswering(): boolean {
    return this.onTheirWay.size > 0;
  }

  /** We send; `isRead` is called when the peer has read all of it. */
  send(bytes: number, isRead?: () => void): void {
    this.down.write(bytes, this.clock.now());
    if (!isRead) return;
    this.marks.push({ at: this.down.written, isRead });
    if (this.marks.length === 1) this.watch();
  }

  /** The peer sends; `frame` is called at our side when all of it has arrived. */
  upload(bytes: number, frame?: () => void): void {
    this.pass();
    this.uploaded += bytes;
    this.uploads.push({ end: this.uploaded, frame });
    this.step();
  }

  change(conditions: LinkConditions): void {
    this.pass();
    this.conditions = conditions;
    this.down.change({ rate: this.downRate }, this.clock.now());
    this.watch();
    this.step();
  }

  /** Nothing passes in this direction, or everything again. */
  setCut(direction: Direction, isCut: boolean): void {
    this.pass();
    this.cut[direction] = isCut;
    this.down.change({ isCut: this.cut.down }, this.clock.now());
    this.watch();
    if (direction === 'up' && !isCut) this.clock.io(() => this.arrive());
    this.step();
  }

  /** What is on its way, in either direction, arrives at once. */
  hurry(): void {
    for (const isRead of [...this.onTheirWay]) this.arriveThere(isRead);
    this.line = this.line.map(({ arrival }) => ({ at: this.clock.now(), arrival }));
    this.clock.io(() => this.arrive());
  }

  /** Bytes a millisecond that the application of the peer reads; 0: it does not. */
  setReads(bytesPerMs: number): void {
    this.reads = Math.min(bytesPerMs, UNLIMITED_BYTES_PER_MS);
    this.down.change({ readRate: this.reads }, this.clock.now());
    this.watch();
  }

  /** When the answer to what we have sent so far would be here, if nothing changes. */
  answerAt(mark: number, thinkMs: number): number {
    if (this.cut.up) return Infinity;
    const now = this.clock.now();
    const readAt = this.down.whenRead(mark, now);
    const uploadMs = (this.uploaded - this.passed) / this.upRate - (now - this.passedAt);
    const jitter = Math.max(0, ...this.conditions.jitterMs);
    return (
      Math.max(readAt + thinkMs + this.delayMs, now + Math.max(0, uploadMs)) + this.delayMs + 2 * jitter + 1
    );
  }

  /** The connection is gone: nothing arrives any more. */
  end(): void {
    this.isEnded = true;
    this.marks.length = 0;
    this.uploads.length = 0;
    this.line.length = 0;
    this.passed = this.uploaded;
    this.reported = this.uploaded;
  }

  /** With a long round trip, the buffers are what limits the rate. */
  private get downRate(): number {
    const { downRate, delayMs } = this.conditions;
    const window = Math.min(this.buffers.sendBuffer, this.buffers.receiveBuffer);
    const byWindow = window / Math.max(LEAST_ROUND_TRIP_MS, 2 * delayMs);
    return Math.min(perMs(downRate), byWindow, UNLIMITED_BYTES_PER_MS);
  }

  private arriveThere(isRead: () => void): void {
    if (this.onTheirWay.delete(isRead) && !this.isEnded) isRead();
  }

  private get upRate(): number {
    return perMs(this.conditions.upRate);
  }

  private nextJitter(): number {
    const { jitterMs } = this.conditions;
    return jitterMs.length === 0 ? 0 : (jitterMs[this.jittered++ % jitterMs.length] as number);
  }

  /** Waits for the first mark to be read, as it looks now. */
  private watch(): void {
    const watched = ++this.watched;
    const [first] = this.marks;
    if (!first) return;
    const now = this.clock.now();
    const at = this.down.whenRead(first.at, now);
    if (at === Infinity) return;
    this.clock.io(
      () => {
        if (watched !== this.watched || this.isEnded) return;
        this.marks.shift();
        // The way there; the way back is the answer's.
        this.onTheirWay.add(first.isRead);
        this.clock.io(() => this.arriveThere(first.isRead), this.delayMs + this.nextJitter());
        this.watch();
      },
      Math.ceil(at - now),
    );
  }

  /** What has passed the narrowest place by now. */
  private pass(): void {
    const now = this.clock.now();
    if (!this.cut.up) {
      this.passed = Math.min(this.uploaded, this.passed + this.upRate * (now - this.passedAt));
    }
    this.passedAt = now;
  }

  /** Waits for the next bytes of the upload to pass. */
  private step(): void {
    const stepped = ++this.stepped;
    const [first] = this.uploads;
    if (!first || this.cut.up) return;
    const upTo = Math.min(first.end, this.passed + Math.max(1, this.upRate * PROGRESS_MS));
    this.clock.io(
      () => {
        if (stepped !== this.stepped || this.isEnded) return;
        this.pass();
        this.passed = Math.max(this.passed, upTo);
        const bytes = Math.floor(upTo) - Math.floor(this.reported);
        this.reported = upTo;
        const isWhole = upTo >= first.end;
        if (isWhole) this.uploads.shift();
        this.arriveIn(this.delayMs + this.nextJitter(), { bytes, frame: isWhole ? first.frame : undefined });
        this.step();
      },
      Math.ceil((upTo - this.passed) / this.upRate),
    );
  }

  /** In order: what was sent later overtakes nothing. */
  private arriveIn(ms: number, arrival: Arrival): void {
    this.line.push({ at: this.clock.now() + ms, arrival });
    this.clock.io(() => this.arrive(), ms);
  }

  private arrive(): void {
    const now = this.clock.now();
    for (let [first] = this.line; first && first.at <= now && !this.cut.up; [first] = this.line) {
      this.line.shift();
      this.onArrival(first.arrival);
    }
  }
}

function perMs(kibPerSecond: number | undefined): number {
  return kibPerSecond === undefined ? UNLIMITED_BYTES_PER_MS : (kibPerSecond * 1_024) / 1_000;
}
