import { Inject, Injectable } from '@nestjs/common';
import type { Counter, Gauge, Histogram, Registry } from 'prom-client';
import { Canary } from '../admission/canary.js';
import { DrainState } from '../admission/drain-state.js';
import { CircuitBreakerService } from '../cleanup/circuit-breaker.service.js';
import { EventStream } from '../events/event-stream.js';
import { NodeCounters } from '../events/node-counters.js';
import { type AdmissionOutcome, MANAGER_STATUSES } from '../events/vocabulary.js';
import type { WebSocketManagerEvent } from '../events/websocket-manager-event.js';
import { Heartbeat } from '../liveness/heartbeat.js';
import { ManagerRegistry } from '../manager/manager-registry.js';
import { importOptional } from '../options/import-optional.js';
import { LatencyHistogram } from './latency-histogram.js';

type PromClient = typeof import('prom-client');

/** A `Registry` of prom-client, said so that an application without prom-client can compile these types. */
export interface MetricsRegistry {
  getSingleMetric(name: string): unknown;
  registerMetric(metric: unknown): void;
}

/** Where metrics go. */
export interface MetricsOptions {
  /** The registry to use. Default: prom-client's own default registry. */
  readonly registry?: MetricsRegistry | undefined;
}

/** `false`: no metrics; otherwise where to. */
export const METRICS_OPTIONS = Symbol.for('nestjs-websocket-manager:metrics-options');

const PREFIX = 'websocket_manager_';
/** The two halves of a promise: an answer at once, and one within a probe of 1 s. */
const ADMISSION_BUCKETS = [0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 1.1, 2.5, 5, 10];
const CLEANUP_BUCKETS = [0.0001, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 2, 5];
const LATENCY_BUCKETS = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];
const STORE_BUCKETS = [0.00001, 0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1];

/**
 * Prometheus metrics, where prom-client is installed. Counts come from the event stream; what is a state is read
 * when the registry is scraped. No label ever carries a user.
 */
@Injectable()
export class MetricsService {
  private metrics: MetricSet | undefined;

  constructor(
    private readonly events: EventStream,
    private readonly counters: NodeCounters,
    private readonly registry: ManagerRegistry,
    private readonly breaker: CircuitBreakerService,
    private readonly heartbeat: Heartbeat,
    private readonly canary: Canary,
    private readonly drain: DrainState,
    @Inject(METRICS_OPTIONS) private readonly options: MetricsOptions | false,
  ) {}

  /** Begins to count. Without prom-client, or with `metrics: false`, it does nothing. */
  async start(): Promise<void> {
    if (this.options === false) return;
    const prom = await importOptional(() => import('prom-client'), 'prom-client');
    if (!prom) return;
    // Node offers the members of a CommonJS package on its default export.
    const client = (prom as { default?: PromClient }).default ?? prom;
    const metrics = MetricSet.of(client, (this.options.registry as Registry | undefined) ?? client.register);
    this.metrics = metrics;
    metrics.nodes.add(this);
    this.counters.onAdmission = (outcome, ms, returned) => {
      metrics.admissions[outcome]++;
      metrics.admissionDuration.observe(ms / 1_000);
      if (outcome === 'admitted_after_cleanup') metrics.lockoutsPrevented.inc();
      if (returned) metrics.evictedReturned.inc();
    };
    this.counters.onPong = (ms) => metrics.pongLatency.observe(ms / 1_000);
    this.counters.onStoreOperation = (operation, ms) =>
      metrics.storeDuration.observe({ operation }, ms / 1_000);
    this.events.onListenerFailed = () => metrics.hookFailures.inc({ hook: 'events$' });
    this.events.listen(COUNTED, (event) => count(metrics, event));
  }

  /** Takes this node out of the metrics. */
  stop(): void {
    this.metrics?.nodes.delete(this);
    this.counters.onAdmission = undefined;
    this.counters.onPong = undefined;
    this.counters.onStoreOperation = undefined;
    this.events.onListenerFailed = undefined;
  }

  /** The states of this node, by the name of their gauge. */
  read(): NodeReading {
    const { registry, counters, breaker } = this;
    return {
      managers: registry.statusCounts,
      users: registry.userCount,
      usersAtLimit: registry.usersAtLimit.size,
      connections: registry.connectionCount,
      bufferedBytes: registry.bufferedBytes,
      openBreakers: breaker.count('open'),
      halfOpenBreakers: breaker.count('half-open'),
      closedBreakers: breaker.count('closed'),
      canaryOk: this.canary.lastResult?.ok ?? true,
      selfPreservation: this.heartbeat.isSelfPreserving,
      draining: this.drain.isDraining,
      messagesIn: counters.messagesIn,
      messagesOut: counters.messagesOut,
      eventLoopVoids: counters.eventLoopVoids,
    };
  }
}

interface NodeReading {
  readonly managers: Readonly<Record<string, number>>;
  readonly users: number;
  readonly usersAtLimit: number;
  readonly connections: number;
  readonly bufferedBytes: number;
  readonly openBreakers: number;
  readonly halfOpenBreakers: number;
  readonly closedBreakers: number;
  readonly canaryOk: boolean;
  readonly selfPreservation: boolean;
  readonly draining: boolean;
  readonly messagesIn: number;
  readonly messagesOut: number;
  readonly eventLoopVoids: number;
}

/** Where a registry keeps its set: whoever registers a second time, in a test or after a reload, finds the first. */
const METRIC_SET = Symbol.for('nestjs-websocket-manager:metrics');

/** All metrics of one prom-client registry, and the nodes (one, but in tests) that they speak of. */
class MetricSet {
  readonly nodes = new Set<MetricsService>();
  /** Newcomers since the last scrape, by what became of them. */
  readonly admissions: Record<AdmissionOutcome | 'rejected', number> = {
    admitted: 0,
    joined: 0,
    admitted_after_cleanup: 0,
    rejected: 0,
  };
  readonly rejections: Counter<'reason'>;
  readonly admissionDuration: LatencyHistogram;
  readonly cleanups: Counter<'level' | 'trigger' | 'outcome'>;
  readonly cleanupDuration: Histogram<'level'>;
  readonly cleanupLastSuccess: Gauge;
  readonly evictions: Counter<'reason' | 'level'>;
  readonly zombiesDetected: Counter<'signal'>;
  readonly suspects: Counter<'verdict'>;
  readonly evictedReturned: Counter;
  readonly lockoutsPrevented: Counter;
  readonly lockouts: Counter;
  readonly breakerTransitions: Counter<'to'>;
  readonly hookFailures: Counter<'hook'>;
  readonly pongLatency: LatencyHistogram;
  readonly storeDuration: Histogram<'operation'>;
  readonly storeErrors: Counter<'operation'>;

  static of(prom: PromClient, registry: Registry): MetricSet {
    const holder = registry as Registry & { [METRIC_SET]?: MetricSet };
    // `registry.clear()` drops the metrics, and the set with them.
    if (!holder[METRIC_SET] || !registry.getSingleMetric(`${PREFIX}managers`)) {
      holder[METRIC_SET] = new MetricSet(prom, registry);
    }
    return holder[METRIC_SET];
  }

  private constructor(
    private readonly prom: PromClient,
    private readonly registry: Registry,
  ) {
    this.rejections = this.counter('rejections_total', 'Refusals, by reason', ['reason']);
    this.admissionDuration = this.latency('admission_duration_seconds', 'Time to decide', ADMISSION_BUCKETS);
    this.cleanups = this.counter('cleanups_total', 'Cleanups of one user', ['level', 'trigger', 'outcome']);
    this.cleanupDuration = this.histogram(
      'cleanup_duration_seconds',
      'Time a cleanup took to decide and free',
      ['level'],
      CLEANUP_BUCKETS,
    );
    this.cleanupLastSuccess = new prom.Gauge({
      name: `${PREFIX}cleanup_last_success_timestamp_seconds`,
      help: 'When a sweep or a cleanup last succeeded',
      registers: [registry],
    });
    this.evictions = this.counter('evictions_total', 'Managers that were ended', ['reason', 'level']);
    this.zombiesDetected = this.counter('zombies_detected_total', 'Connections proven dead', ['signal']);
    this.suspects = this.counter('zombie_suspects_total', 'Suspects, by what they turned out to be', [
      'verdict',
    ]);
    this.evictedReturned = this.counter('evicted_returned_total', 'Sessions evicted, and back within 30 s');
    this.lockoutsPrevented = this.counter('lockouts_prevented_total', 'Newcomers at the limit that came in');
    this.lockouts = this.counter(
      'lockouts_total',
      'Newcomers refused though somebody could have gone: a bug',
    );
    this.breakerTransitions = this.counter('circuit_breaker_transitions_total', 'Breaker changes', ['to']);
    this.hookFailures = this.counter('hook_failures_total', 'Hooks of the application that failed', ['hook']);
    this.pongLatency = this.latency('pong_latency_seconds', 'From a ping to its pong', LATENCY_BUCKETS);
    this.storeDuration = this.histogram(
      'store_operation_duration_seconds',
      'Calls to the slot store that were waited for',
      ['operation'],
      STORE_BUCKETS,
    );
    this.storeErrors = this.counter('store_errors_total', 'Calls to the slot store that failed', [
      'operation',
    ]);
    for (const operation of ['reserve', 'release']) this.storeDuration.zero({ operation });
    for (const metric of [this.evictedReturned, this.lockoutsPrevented, this.lockouts]) metric.inc(0);
    this.stateGauges();
    this.tallies();
  }

  private stateGauges(): void {
    this.gauge('managers', 'Managers, by status', 'status', () =>
      MANAGER_STATUSES.map((status) => [status, this.sum(({ managers }) => managers[status] ?? 0)]),
    );
    this.gauge('circuit_breakers', 'Circuit breakers that have seen a failure, by state', 'state', () => [
      ['open', this.sum(({ openBreakers }) => openBreakers)],
      ['half-open', this.sum(({ halfOpenBreakers }) => halfOpenBreakers)],
      ['closed', this.sum(({ closedBreakers }) => closedBreakers)],
    ]);
    const plain: [string, string, (reading: NodeReading) => number][] = [
      ['users', 'Users with a manager, or remembered for the grace', ({ users }) => users],
      ['users_at_limit', 'Users at their limit', ({ usersAtLimit }) => usersAtLimit],
      ['connections', 'Open connections', ({ connections }) => connections],
      [
        'buffered_bytes',
        'Bytes waiting to be sent, as of the last look',
        ({ bufferedBytes }) => bufferedBytes,
      ],
      [
        'self_preservation',
        '1: nobody is ended for silence',
        ({ selfPreservation }) => Number(selfPreservation),
      ],
      ['draining', '1: shutting down', ({ draining }) => Number(draining)],
    ];
    for (const [name, help, pick] of plain) this.gauge(name, help, undefined, () => [['', this.sum(pick)]]);
    this.gauge('canary_ok', '1: every cleanup level works', undefined, () => [
      ['', this.sum(({ canaryOk }) => Number(!canaryOk)) === 0 ? 1 : 0],
    ]);
  }

  /** Counted as plain numbers where it happens, handed over when somebody scrapes. */
  private tallies(): void {
    this.tally('messages_total', 'Application messages', 'direction', () => [
      ['in', this.sum(({ messagesIn }) => messagesIn)],
      ['out', this.sum(({ messagesOut }) => messagesOut)],
    ]);
    const { admissions } = this;
    new this.prom.Counter({
      name: `${PREFIX}admissions_total`,
      help: 'Newcomers, by what became of them',
      labelNames: ['outcome'],
      registers: [this.registry],
      collect() {
        for (const outcome of Object.keys(admissions) as (keyof typeof admissions)[]) {
          if (admissions[outcome] > 0) this.inc({ outcome }, admissions[outcome]);
          admissions[outcome] = 0;
        }
      },
    });
    this.tally('event_loop_voids_total', 'Heartbeat ticks too late to be believed', undefined, () => [
      ['', this.sum(({ eventLoopVoids }) => eventLoopVoids)],
    ]);
  }

  private sum(pick: (reading: NodeReading) => number): number {
    let sum = 0;
    for (const node of this.nodes) sum += pick(node.read());
    return sum;
  }

  private counter<L extends string>(name: string, help: string, labelNames: L[] = []): Counter<L> {
    return new this.prom.Counter({ name: PREFIX + name, help, labelNames, registers: [this.registry] });
  }

  private latency(name: string, help: string, bounds: number[]): LatencyHistogram {
    const histogram = new LatencyHistogram(PREFIX + name, help, bounds);
    (this.registry as MetricsRegistry).registerMetric(histogram);
    return histogram;
  }

  private histogram<L extends string>(
    name: string,
    help: string,
    labelNames: L[],
    buckets: number[],
  ): Histogram<L> {
    return new this.prom.Histogram({
      name: PREFIX + name,
      help,
      labelNames,
      buckets,
      registers: [this.registry],
    });
  }

  private gauge(name: string, help: string, label: string | undefined, read: () => [string, number][]): void {
    new this.prom.Gauge({
      name: PREFIX + name,
      help,
      labelNames: label ? [label] : [],
      registers: [this.registry],
      collect() {
        for (const [value, number] of read()) {
          if (label) this.set({ [label]: value }, number);
          else this.set(number);
        }
      },
    });
  }

  private tally(name: string, help: string, label: string | undefined, read: () => [string, number][]): void {
    new this.prom.Counter({
      name: PREFIX + name,
      help,
      labelNames: label ? [label] : [],
      registers: [this.registry],
      collect() {
        this.reset();
        for (const [value, number] of read()) {
          if (label) this.inc({ [label]: value }, number);
          else this.inc(number);
        }
      },
    });
  }
}

const COUNTED = [
  'rejected',
  'evicted',
  'zombie_detected',
  'recovered',
  'cleanup_finished',
  'sweep_finished',
  'breaker_changed',
  'hook_failed',
  'store_failed',
] as const;

function count(
  metrics: MetricSet,
  event: Extract<WebSocketManagerEvent, { type: (typeof COUNTED)[number] }>,
): void {
  switch (event.type) {
    case 'rejected':
      metrics.admissions.rejected++;
      metrics.rejections.inc({ reason: event.reason });
      metrics.admissionDuration.observe(event.durationMs / 1_000);
      if (event.lockout) metrics.lockouts.inc();
      break;
    case 'evicted':
      metrics.evictions.inc({ reason: event.reason, level: event.level ?? 'none' });
      break;
    case 'zombie_detected':
      metrics.zombiesDetected.inc({ signal: event.evidence.signal });
      if (event.wasSuspect) metrics.suspects.inc({ verdict: 'confirmed' });
      break;
    case 'recovered':
      metrics.suspects.inc({ verdict: 'recovered' });
      break;
    case 'cleanup_finished': {
      const { level, trigger, outcome, durationMs, at } = event;
      metrics.cleanups.inc({ level, trigger, outcome });
      metrics.cleanupDuration.observe({ level }, durationMs / 1_000);
      if (outcome === 'freed' || outcome === 'nothing_to_do') metrics.cleanupLastSuccess.set(at / 1_000);
      break;
    }
    case 'sweep_finished':
      metrics.cleanupLastSuccess.set(event.at / 1_000);
      break;
    case 'breaker_changed':
      metrics.breakerTransitions.inc({ to: event.to });
      break;
    case 'hook_failed':
      // An application may emit events of its own on a socket, and name them as it likes: a label must not grow with that.
      metrics.hookFailures.inc({ hook: event.hook.startsWith('listener of ') ? 'listener' : event.hook });
      break;
    case 'store_failed':
      metrics.storeErrors.inc({ operation: event.operation });
      break;
  }
}
