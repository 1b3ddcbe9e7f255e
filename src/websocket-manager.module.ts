import {
  type BeforeApplicationShutdown,
  ConfigurableModuleBuilder,
  type DynamicModule,
  Module,
  type OnApplicationBootstrap,
  type OnApplicationShutdown,
  type OnModuleDestroy,
  type OnModuleInit,
} from '@nestjs/common';
import { ApplicationConfig, DiscoveryModule, DiscoveryService } from '@nestjs/core';
import { Canary } from './admission/canary.js';
import { Door } from './admission/door.js';
import { DrainService } from './admission/drain.service.js';
import { DrainSignals } from './admission/drain-signals.js';
import { DrainState } from './admission/drain-state.js';
import { EvictedSessions } from './admission/evicted-sessions.js';
import { GatewayHooks } from './admission/gateway-hooks.js';
import { Refusals } from './admission/refusal.js';
import { WebSocketManagerAdapter } from './admission/websocket-manager.adapter.js';
import { WebSocketManagerFactory } from './admission/websocket-manager.factory.js';
import { WebSocketManagerService } from './admission/websocket-manager.service.js';
import { CircuitBreakerService } from './cleanup/circuit-breaker.service.js';
import { CleanupService } from './cleanup/cleanup.service.js';
import { CleanupScheduler } from './cleanup/cleanup-scheduler.js';
import { Clock, SystemClock } from './clock/clock.js';
import { EventStream } from './events/event-stream.js';
import { NodeCounters } from './events/node-counters.js';
import {
  CONNECTION_DETECTOR_METADATA,
  type ConnectionDetector,
} from './liveness/connection-detector.interface.js';
import { Heartbeat } from './liveness/heartbeat.js';
import { StatusKeeper } from './liveness/status-keeper.js';
import { ZombieDetectorService } from './liveness/zombie-detector.service.js';
import { ManagerRegistry } from './manager/manager-registry.js';
import { AuditService } from './observability/audit.service.js';
import { EventLog } from './observability/event-log.js';
import { type AdminOptions, guardedAdmin } from './observability/guarded-admin.js';
import { METRICS_OPTIONS, type MetricsOptions, MetricsService } from './observability/metrics.service.js';
import { OperatorStreams } from './observability/operator-streams.js';
import { WebSocketHealthService } from './observability/websocket-health.service.js';
import { importOptional } from './options/import-optional.js';
import { resolveOptions, WebSocketManagerOptionsError } from './options/resolve-options.js';
import {
  MODULE_OPTIONS,
  RESOLVED_OPTIONS,
  type ResolvedOptions,
  type WebSocketManagerOptions,
  type WebSocketManagerOptionsFactory,
} from './options/websocket-manager-options.interface.js';
import { SlotLedger } from './store/slot-ledger.js';

/**
 * What decides how the module is put together; given at the call of `forRoot` or `forRootAsync` itself, since it
 * has to be known before any factory has run.
 */
export interface WebSocketManagerModuleExtras {
  /** Whether other modules can inject what this one exports without importing it. Default: true. */
  isGlobal?: boolean | undefined;
  /** Mounts `GET /health`, `/health/live` and `/health/ready`; needs @nestjs/terminus. Default: false. */
  health?: boolean | undefined;
  /** Metrics: `false` for none, or which prom-client registry to use. Default: prom-client's own, if installed. */
  metrics?: MetricsOptions | false | undefined;
  /** Mounts the operator's API under `/websocket-managers`, behind these guards. Default: off. */
  admin?: AdminOptions | undefined;
}

const DEFAULT_EXTRAS: WebSocketManagerModuleExtras = {
  isGlobal: true,
  health: false,
  metrics: {},
  admin: undefined,
};

const { ConfigurableModuleClass, OPTIONS_TYPE, ASYNC_OPTIONS_TYPE } =
  new ConfigurableModuleBuilder<WebSocketManagerOptions>({
    optionsInjectionToken: MODULE_OPTIONS,
  })
    .setClassMethodName('forRoot')
    .setFactoryMethodName(
      'createWebSocketManagerOptions' satisfies keyof WebSocketManagerOptionsFactory as 'createWebSocketManagerOptions',
    )
    .setExtras<WebSocketManagerModuleExtras>(DEFAULT_EXTRAS, assemble)
    .build();

function assemble(definition: DynamicModule, extras: WebSocketManagerModuleExtras): DynamicModule {
  checkExtras(extras);
  const admin = extras.admin && guardedAdmin(extras.admin);
  const health = extras.health ? [loadHealthModule()] : [];
  return {
    ...definition,
    global: extras.isGlobal ?? true,
    imports: [...(definition.imports ?? []), ...(admin?.imports ?? []), ...health],
    controllers: admin?.controllers ?? [],
    providers: [
      ...(definition.providers ?? []),
      ...(admin?.providers ?? []),
      { provide: METRICS_OPTIONS, useValue: extras.metrics ?? {} },
    ],
  };
}

/** The options are checked when they are resolved; these have no other place. */
function checkExtras(extras: WebSocketManagerModuleExtras): void {
  for (const key of ['isGlobal', 'health'] as const) {
    const value: unknown = extras[key];
    if (value === undefined || value === null || typeof value === 'boolean') continue;
    throw new WebSocketManagerOptionsError(key, value, 'true or false');
  }
  const metrics: unknown = extras.metrics ?? {};
  if (metrics !== false && typeof metrics !== 'object') {
    throw new WebSocketManagerOptionsError('metrics', metrics, 'false, or an object with a registry');
  }
  const { registry } = metrics as MetricsOptions;
  const methods = [registry?.registerMetric, registry?.getSingleMetric];
  if (registry && methods.some((method) => typeof method !== 'function')) {
    throw new WebSocketManagerOptionsError('metrics.registry', registry, 'a Registry of prom-client');
  }
}

function resolveGivenOptions(options: WebSocketManagerOptions | undefined): ResolvedOptions {
  if (options !== undefined) return resolveOptions(options);
  throw new WebSocketManagerOptionsError(
    'imports',
    undefined,
    'WebSocketManagerModule.forRoot({ authenticate }), or forRootAsync whose factory returns options; once in the application, and in no feature module: it is global',
  );
}

/** Terminus is loaded only where the health routes are asked for. */
function loadHealthModule(): Promise<DynamicModule> {
  const loading = importOptional(() => import('./observability/health.module.js'), '@nestjs/terminus').then(
    (loaded) => {
      if (loaded) return { module: loaded.WebSocketHealthModule };
      throw new WebSocketManagerOptionsError('health', true, 'true where @nestjs/terminus is installed');
    },
  );
  // Nest waits for it only when it comes to this module; a failure before that would be nobody's, and end the process.
  loading.catch(() => {});
  return loading;
}

/** What an application, and the modules that this one imports for it, can inject. */
const EXPORTED = [
  WebSocketManagerService,
  WebSocketManagerFactory,
  ZombieDetectorService,
  CircuitBreakerService,
  CleanupService,
  WebSocketHealthService,
  AuditService,
  ManagerRegistry,
  Clock,
  RESOLVED_OPTIONS,
];

/** One import: see the README. */
@Module({
  imports: [DiscoveryModule],
  providers: [
    { provide: Clock, useClass: SystemClock },
    {
      provide: RESOLVED_OPTIONS,
      useFactory: resolveGivenOptions,
      // Optional, so that what says what is missing is we.
      inject: [{ token: MODULE_OPTIONS, optional: true }],
    },
    { provide: METRICS_OPTIONS, useValue: {} },
    EventStream,
    NodeCounters,
    ManagerRegistry,
    SlotLedger,
    Heartbeat,
    ZombieDetectorService,
    StatusKeeper,
    CircuitBreakerService,
    CleanupService,
    CleanupScheduler,
    DrainState,
    EvictedSessions,
    WebSocketManagerFactory,
    Refusals,
    Door,
    GatewayHooks,
    WebSocketManagerAdapter,
    DrainService,
    DrainSignals,
    Canary,
    WebSocketManagerService,
    EventLog,
    AuditService,
    OperatorStreams,
    MetricsService,
    WebSocketHealthService,
  ],
  exports: EXPORTED,
})
export class WebSocketManagerModule
  extends ConfigurableModuleClass
  implements
    OnModuleInit,
    OnApplicationBootstrap,
    OnModuleDestroy,
    BeforeApplicationShutdown,
    OnApplicationShutdown
{
  /** Options, and {@link WebSocketManagerModuleExtras} beside them. Throws {@link WebSocketManagerOptionsError}. */
  static override forRoot(options: typeof OPTIONS_TYPE): DynamicModule {
    // biome-ignore lint/complexity/noThisInStatic: the class that it is called on is the module
    if (typeof options === 'object' && options !== null) return super.forRoot(options);
    throw new WebSocketManagerOptionsError('forRoot', options, 'an object with at least authenticate');
  }

  /**
   * Options by `useFactory`, `useClass` or `useExisting`; {@link WebSocketManagerModuleExtras} stand beside it. Throws
   * {@link WebSocketManagerOptionsError}.
   */
  static override forRootAsync(options: typeof ASYNC_OPTIONS_TYPE): DynamicModule {
    // biome-ignore lint/complexity/noThisInStatic: as above
    if (options?.useFactory || options?.useClass || options?.useExisting) return super.forRootAsync(options);
    throw new WebSocketManagerOptionsError(
      'forRootAsync',
      options,
      'an object with useFactory, useClass or useExisting',
    );
  }

  constructor(
    config: ApplicationConfig,
    adapter: WebSocketManagerAdapter,
    private readonly discovery: DiscoveryService,
    private readonly detector: ZombieDetectorService,
    private readonly cleanup: CleanupService,
    private readonly scheduler: CleanupScheduler,
    private readonly ledger: SlotLedger,
    private readonly canary: Canary,
    private readonly metrics: MetricsService,
    private readonly drain: DrainService,
    private readonly signals: DrainSignals,
    private readonly events: EventStream,
    private readonly log: EventLog,
  ) {
    super();
    // Before any gateway is connected, and before main.ts can call useWebSocketAdapter.
    adapter.install(config);
  }

  async onModuleInit(): Promise<void> {
    for (const detector of this.detectors()) this.detector.register(detector);
    this.cleanup.start();
    await this.ledger.start();
    await this.metrics.start();
  }

  async onApplicationBootstrap(): Promise<void> {
    await this.scheduler.start();
    this.canary.start();
    this.signals.register(() => this.drain.drain());
  }

  onModuleDestroy(): void {
    this.drain.begin();
  }

  /** Before the platform terminates the sockets. */
  async beforeApplicationShutdown(): Promise<void> {
    this.signals.unregister();
    await this.drain.drain();
    // Now, since whoever streams the events over HTTP would keep the server from closing.
    this.events.complete();
  }

  onApplicationShutdown(): void {
    this.scheduler.stop();
    this.canary.stop();
    this.detector.stop();
    this.metrics.stop();
    this.log.stop();
  }

  private *detectors(): Generator<ConnectionDetector> {
    for (const { instance, metatype } of this.discovery.getProviders()) {
      if (!instance || typeof metatype !== 'function') continue;
      if (Reflect.getMetadata(CONNECTION_DETECTOR_METADATA, metatype)) yield instance as ConnectionDetector;
    }
  }
}
