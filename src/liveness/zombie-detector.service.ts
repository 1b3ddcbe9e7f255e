import { Inject, Injectable } from '@nestjs/common';
import { Clock, type WorkPriority } from '../clock/clock.js';
import { settleWithin } from '../clock/deadline.js';
import { EventStream } from '../events/event-stream.js';
import type { ZombieSignal } from '../events/vocabulary.js';
import type { Connection } from '../manager/connection.js';
import { ManagerRegistry } from '../manager/manager-registry.js';
import type { UserRecord } from '../manager/user-record.js';
import { RESOLVED_OPTIONS, type ResolvedOptions } from '../options/websocket-manager-options.interface.js';
import { type AssessmentRules, proofOf, restsOnSilence, rulesOf } from './assessment.js';
import type { ConnectionDetector, DetectorOpinion, DetectorView } from './connection-detector.interface.js';
import { Heartbeat, type HeartbeatVisitor } from './heartbeat.js';

/** Told of every connection that is proven dead. */
export type ProofListener = (connection: Connection, signal: ZombieSignal) => void;

/** Rounds of one user start at most so often; who comes in between waits for the next start, and shares it. */
const ROUND_SPACING_MS = 40;

/** Each is a system call; so many take about half a millisecond. */
const PINGS_AT_ONCE = 50;

interface Round {
  readonly startsAt: number;
  /** An incoming connection that shares the round before it starts raises it. */
  priority: WorkPriority;
  done: Promise<void>;
}

/** Finds out who is no longer there: draws the heartbeat's conclusions, and asks at once where that is needed. */
@Injectable()
export class ZombieDetectorService implements HeartbeatVisitor {
  private readonly rules: AssessmentRules;
  private readonly detectors: ConnectionDetector[] = [];
  /** The latest round of each user, under way or over. */
  private readonly rounds = new Map<UserRecord, Round>();
  /** Connections whose detectors have not answered yet: none is asked twice at once. */
  private readonly consulted = new Set<Connection>();
  private onProof: ProofListener | undefined;

  constructor(
    private readonly clock: Clock,
    private readonly registry: ManagerRegistry,
    private readonly heartbeat: Heartbeat,
    private readonly events: EventStream,
    @Inject(RESOLVED_OPTIONS) private readonly options: ResolvedOptions,
  ) {
    this.rules = rulesOf(options);
    registry.observe({
      userForgotten: (user) => this.rounds.delete(user),
      connectionRemoved: (connection) => this.consulted.delete(connection),
    });
  }

  /** Starts the heartbeat; `onProof` is told of every connection that it finds dead. */
  start(onProof: ProofListener): void {
    this.onProof = onProof;
    this.heartbeat.start(this);
  }

  stop(): void {
    this.heartbeat.stop();
  }

  /** Adds a detector; those marked with `@WebSocketDetector()` are added at boot. */
  register(detector: ConnectionDetector): void {
    this.detectors.push(detector);
  }

  /** What proves the connection dead at this moment; undefined: nothing does. */
  proofOf(connection: Connection): ZombieSignal | undefined {
    if (connection.transport.state === 'open') {
      connection.lookForBytes();
      // Output since the last look extends the time as well.
      connection.noteWritten(0);
    }
    return proofOf(connection, this.rules);
  }

  /** Whether a proof may be acted on in the background: see {@link Heartbeat.isSelfPreserving}. */
  isCredible(signal: ZombieSignal): boolean {
    return !restsOnSilence(signal) || !this.heartbeat.isSelfPreserving;
  }

  /**
   * Asks all of a user's connections at once, and waits until all have answered or `heartbeat.probeTimeoutMs` is
   * over. A connection that has not sent a byte by then is a suspect. That is no proof: the network, a download or a busy
   * phone may take longer. The ping counts as the heartbeat's first one, which finds the proof.
   *
   * A round that started before the call would prove nothing: who answered it may have frozen since. So a call
   * starts a round of its own, or shares the next one, at most {@link ROUND_SPACING_MS} later.
   */
  probe(user: UserRecord, priority: WorkPriority = 'background'): Promise<void> {
    const now = this.clock.now();
    const latest = this.rounds.get(user);
    if (latest && latest.startsAt > now) {
      if (priority === 'admission') latest.priority = priority;
      return latest.done;
    }
    const startsAt = Math.max(now, (latest?.startsAt ?? Number.NEGATIVE_INFINITY) + ROUND_SPACING_MS);
    const round: Round = { startsAt, priority, done: Promise.resolve() };
    round.done = this.startRound(user, startsAt - now, round);
    this.rounds.set(user, round);
    return round.done;
  }

  noteProof(connection: Connection): void {
    if (this.credibleProofOf(connection) === undefined) return;
    // The tick may have been a little late: what waits in the socket at this moment still counts.
    this.clock.afterReads(() => {
      const signal = connection.detached ? undefined : this.credibleProofOf(connection);
      if (signal === undefined) return;
      this.registry.touched(connection.manager);
      this.onProof?.(connection, signal);
    });
  }

  noteBeat(connection: Connection): void {
    if (!this.canConsult(connection) || this.consulted.has(connection)) return;
    this.consulted.add(connection);
    void this.consult(connection).then(() => {
      this.consulted.delete(connection);
      if (!connection.detached) this.noteProof(connection);
    });
  }

  /** Whether the application has anything to say about it. */
  private canConsult({ manager }: Connection): boolean {
    return this.detectors.length > 0 || manager.ownAliveCheck !== undefined;
  }

  private credibleProofOf(connection: Connection): ZombieSignal | undefined {
    const signal = this.proofOf(connection);
    return signal !== undefined && this.isCredible(signal) ? signal : undefined;
  }

  private async startRound(user: UserRecord, inMs: number, round: Round): Promise<void> {
    if (inMs > 0) await new Promise<void>((resolve) => void this.clock.setTimeout(resolve, inMs));
    const silent = await this.ask(connectionsOf(user), round.priority);
    const now = this.clock.now();
    for (const connection of silent) {
      if (connection.suspectedAt !== undefined) continue;
      this.heartbeat.noteSuspect(connection);
      connection.suspectedAt = now;
      this.events.report({
        type: 'suspected',
        ...connection.manager.identity,
        connectionId: connection.id,
        signal: 'missed_probe',
      });
    }
  }

  /** Pings, consults the detectors, and returns who has neither sent a byte nor been vouched for by the deadline. */
  private async ask(
    connections: readonly Connection[],
    priority: WorkPriority = 'background',
  ): Promise<Connection[]> {
    const asked = connections.filter(({ detached, transport }) => !detached && isAskable(transport));
    const { probeTimeoutMs } = this.options.heartbeat;
    const pending = new Set(asked);
    const opinions = asked
      .filter((connection) => this.canConsult(connection))
      .map(async (connection) => {
        if ((await this.consult(connection)) === 'alive') pending.delete(connection);
      });
    const startedAt = this.clock.now();
    await this.waitForBytes(pending, probeTimeoutMs, priority);
    // Our own loop stood still for as long as they had to answer: they get that time once more.
    if (pending.size > 0 && this.clock.now() - startedAt >= 2 * probeTimeoutMs) {
      await this.waitForBytes(pending, probeTimeoutMs, priority);
    }
    // A connection that was heard may still be dead by the application's own evidence. The probe has one deadline: an
    // opinion that is not there by then is none, or an answer that comes while it is awaited would be overlooked.
    const allOpinions = Promise.all(opinions);
    if (pending.size === 0) await allOpinions;
    else await Promise.race([allOpinions, new Promise<void>((resolve) => this.clock.afterReads(resolve))]);
    return [...pending].filter((connection) => !connection.detached && isAskable(connection.transport));
  }

  /** Pings, and takes out of `pending` whoever sends a byte; resolves when it is empty, or the time is over. */
  private async waitForBytes(pending: Set<Connection>, ms: number, priority: WorkPriority): Promise<void> {
    // Who is vouched for leaves `pending` too, and must not be listened to for ever.
    const asked = [...pending];
    let allHeard = () => {};
    const onHeard = (connection: Connection) => {
      connection.offHeard(onHeard);
      pending.delete(connection);
      if (pending.size === 0) allHeard();
    };
    let pinged = 0;
    for (const connection of asked) {
      if (pinged++ % PINGS_AT_ONCE === 0) await this.clock.yieldIfOverBudget(priority);
      // What came before the question is no answer to it.
      connection.lookForBytes();
      connection.onHeard(onHeard);
      connection.ping();
      this.heartbeat.noteProbe(connection);
    }
    await new Promise<void>((resolve) => {
      const stop = () => {
        this.clock.clearTimeout(timer);
        resolve();
      };
      const onDeadline = () => {
        for (const connection of [...pending]) connection.lookForBytes();
        stop();
      };
      // What waits in the sockets when the time is over still counts.
      const timer = this.clock.setTimeout(() => this.clock.afterReads(onDeadline), ms);
      allHeard = stop;
      if (pending.size === 0) stop();
    });
    for (const connection of asked) connection.offHeard(onHeard);
  }

  /** Asks the application; 'dead' is noted as proof. */
  private async consult(connection: Connection): Promise<DetectorOpinion> {
    const { manager } = connection;
    const { ownAliveCheck } = manager;
    const view = this.viewOf(connection);
    const questions: [string, () => DetectorOpinion | Promise<DetectorOpinion>][] = this.detectors.map(
      (detector) => [detector.name, () => detector.examine(view)],
    );
    if (ownAliveCheck) {
      questions.push(['is_alive', async () => ((await ownAliveCheck()) === false ? 'dead' : 'alive')]);
    }
    const opinions = await Promise.all(questions.map(([name, question]) => this.opinionOf(name, question)));
    const dead = opinions.indexOf('dead');
    const detectedBy = questions[dead]?.[0];
    if (detectedBy !== connection.detectedBy) {
      connection.detectedBy = detectedBy;
      // Condemned or acquitted: what it is, and when it is due, follows from that.
      if (!connection.detached) this.registry.touched(manager);
    }
    if (dead >= 0) return 'dead';
    return opinions.includes('alive') ? 'alive' : undefined;
  }

  private async opinionOf(
    name: string,
    question: () => DetectorOpinion | Promise<DetectorOpinion>,
  ): Promise<DetectorOpinion> {
    const { probeTimeoutMs } = this.options.heartbeat;
    const settled = await settleWithin(this.clock, probeTimeoutMs, question);
    if (settled.status === 'done') return settled.value;
    const error =
      settled.status === 'late' ? new Error(`no answer within ${probeTimeoutMs} ms`) : settled.error;
    this.events.report({ type: 'hook_failed', hook: `detector ${name}`, error });
    return undefined;
  }

  private viewOf(connection: Connection): DetectorView {
    const { manager, transport } = connection;
    const now = this.clock.now();
    return {
      ...manager.identity,
      connectionId: connection.id,
      metadata: connection.metadata,
      openForMs: now - connection.openedAt,
      silentForMs: now - connection.lastHeardAt,
      inactiveForMs: now - manager.lastActivityAt,
      missedPongs: connection.missedPongs,
      bufferedBytes: transport.bufferedAmount,
    };
  }
}

function connectionsOf(user: UserRecord): Connection[] {
  return [...user.managers].flatMap((manager) => manager.connections);
}

function isAskable({ state, paused }: Connection['transport']): boolean {
  return state === 'open' && !paused;
}
