import { Injectable, Module } from '@nestjs/common';
import { WebSocketGateway } from '@nestjs/websockets';
import { describe, expect, it } from 'vitest';
import {
  CircuitBreakerService,
  CleanupService,
  WebSocketHealthService,
  WebSocketManagerFactory,
  WebSocketManagerModule,
  type WebSocketManagerOptions,
  type WebSocketManagerOptionsFactory,
  WebSocketManagerService,
  ZombieDetectorService,
} from '../../src/index.js';
import { startApp, testOptions } from '../support/app.js';
import { connect, refusal } from '../support/client.js';

const LIMIT_ONE = { limits: { managersPerUser: 1 } };

@Injectable()
class OptionsService implements WebSocketManagerOptionsFactory {
  async createWebSocketManagerOptions(): Promise<WebSocketManagerOptions> {
    return testOptions(LIMIT_ONE);
  }
}

@Module({ providers: [OptionsService], exports: [OptionsService] })
class OptionsModule {}

describe('forRootAsync', () => {
  it.each([
    ['useFactory', { useFactory: async () => testOptions(LIMIT_ONE) }],
    [
      'useFactory with inject and imports',
      {
        imports: [OptionsModule],
        inject: [OptionsService],
        useFactory: (service: OptionsService) => service.createWebSocketManagerOptions(),
      },
    ],
    ['useClass', { useClass: OptionsService }],
    ['useExisting', { imports: [OptionsModule], useExisting: OptionsService }],
  ])('takes its options by %s', async (_title, asyncOptions) => {
    const { url } = await startApp({ module: WebSocketManagerModule.forRootAsync(asyncOptions as never) });
    const client = await connect(`${url}/ws?userId=alice`);
    expect(await client.echo(1)).toBe(1);
    expect((await refusal(`${url}/ws?userId=alice`)).status).toBe(429);
  });

  it('that fails stops the boot', async () => {
    const module = WebSocketManagerModule.forRootAsync({
      useFactory: () => Promise.reject(new Error('no configuration')),
    });
    await expect(startApp({ module })).rejects.toThrow('no configuration');
  });
});

describe('the module', () => {
  const inject = (isGlobal: boolean | undefined) => {
    @Injectable()
    class Elsewhere {
      constructor(readonly service: WebSocketManagerService) {}
    }
    @Module({ providers: [Elsewhere] })
    class FeatureModule {}
    return startApp({
      imports: [FeatureModule],
      extras: isGlobal === undefined ? {} : { isGlobal },
    }).then(({ app, service }) => app.get(Elsewhere, { strict: false }).service === service);
  };

  it('is global by default, and not where it is told not to be', async () => {
    expect(await inject(undefined)).toBe(true);
    await expect(inject(false)).rejects.toThrow(/can't resolve dependencies of the Elsewhere/);
  });

  it('offers its services by class', async () => {
    const { app } = await startApp();
    for (const service of [
      WebSocketManagerFactory,
      ZombieDetectorService,
      CircuitBreakerService,
      CleanupService,
      WebSocketHealthService,
      WebSocketManagerService,
    ]) {
      expect(app.get(service)).toBeInstanceOf(service);
    }
  });

  it('guards a gateway that asks for nothing but a path', async () => {
    @WebSocketGateway({ path: '/bare' })
    class BareGateway {}
    const { url, service } = await startApp({ gateways: [BareGateway] });
    await connect(`${url}/bare?userId=alice`);
    expect(service.managersOf('alice')).toHaveLength(1);
    expect((await refusal(`${url}/bare`)).status).toBe(401);
  });
});

describe('a call that cannot be used says so', () => {
  const options = testOptions();
  const useFactory = () => options;
  it.each<[string, () => unknown, string]>([
    ['forRoot', () => WebSocketManagerModule.forRoot(undefined as never), 'undefined'],
    ['forRoot', () => WebSocketManagerModule.forRoot(null as never), 'null'],
    ['forRootAsync', () => WebSocketManagerModule.forRootAsync({}), 'an object'],
    ['forRootAsync', () => WebSocketManagerModule.forRootAsync(undefined as never), 'undefined'],
    ['health', () => WebSocketManagerModule.forRoot({ ...options, health: 'yes' as never }), '"yes"'],
    ['isGlobal', () => WebSocketManagerModule.forRootAsync({ useFactory, isGlobal: 1 as never }), '1'],
    ['metrics', () => WebSocketManagerModule.forRoot({ ...options, metrics: true as never }), 'true'],
    [
      'metrics.registry',
      () => WebSocketManagerModule.forRoot({ ...options, metrics: { registry: {} as never } }),
      'an object',
    ],
  ])('%s: %#', (key, call, got) => {
    expect(call).toThrow(`WebSocketManagerModule: ${key}: got ${got}; allowed: `);
  });

  it.each<[string, object]>([
    ['by itself', { module: WebSocketManagerModule }],
    ['in a feature module, where it needs no import', { imports: [WebSocketManagerModule] }],
  ])('the import of the bare class %s', async (_title, setup) => {
    await expect(startApp(setup)).rejects.toThrow(
      /imports: got undefined; allowed: WebSocketManagerModule.forRoot\(/,
    );
  });
});

describe('a wrong option stops the boot with one line that says what is wrong', () => {
  it.each<[string, object, string, string]>([
    ['authenticate', { authenticate: undefined }, 'undefined', 'a function'],
    ['limits.managersPerUser', { limits: { managersPerUser: 0 } }, '0', 'a whole number from 1'],
    ['limits.managersPerNode', { limits: { managersPerNode: 1.5 } }, '1.5', 'a whole number from 1'],
    ['limits.maxPayloadBytes', { limits: { maxPayloadBytes: '1mb' } }, '"1mb"', 'a whole number'],
    ['cleanup.proactiveThreshold', { cleanup: { proactiveThreshold: 60 } }, '60', 'above 0 and at most 1'],
    ['cleanup.moderateThreshold', { cleanup: { moderateThreshold: 0.5 } }, '0.5', 'proactiveThreshold (0.6)'],
    ['cleanup.intervalMs', { cleanup: { intervalMs: Number.NaN } }, 'NaN', 'milliseconds from'],
    ['heartbeat.intervalMs', { heartbeat: { intervalMs: 2 ** 31 } }, '2147483648', 'to 2147483647'],
    ['session', { session: 'long' }, '"long"', 'an object'],
    ['admission.rejectWith', { admission: { rejectWith: 'tcp' } }, '"tcp"', "'auto', 'http', 'close'"],
    ['admission.allowedOrigins[0]', { admission: { allowedOrigins: ['a.b'] } }, '"a.b"', 'scheme://'],
    ['drain.spreadMs', { drain: { spreadMs: 5, timeoutMs: 4 } }, '5', 'drain.timeoutMs (4)'],
    ['store', { store: {} }, 'an object', 'a SlotStore'],
    ['limits.managerPerUser', { limits: { managerPerUser: 5 } }, '5', 'there are managersPerUser'],
    ['limit', { limit: 5 }, '5', 'no such option'],
  ])('%s', async (key, wrong, got, allowed) => {
    const starting = startApp({ options: wrong as Partial<WebSocketManagerOptions> });
    const error = (await starting.then(
      () => new Error('it started'),
      (reason: unknown) => reason,
    )) as Error;
    expect(error.message.startsWith(`WebSocketManagerModule: ${key}: got ${got}; allowed: `)).toBe(true);
    expect(error.message).toContain(allowed);
    expect(error.message).not.toContain('\n');
  });
});
