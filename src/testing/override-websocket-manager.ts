import { Clock } from '../clock/clock.js';
import { resolveOptions } from '../options/resolve-options.js';
import {
  MODULE_OPTIONS,
  RESOLVED_OPTIONS,
  type ResolvedOptions,
  type WebSocketManagerOptions,
} from '../options/websocket-manager-options.interface.js';

/** What {@link overrideWebSocketManager} needs of the `TestingModuleBuilder` of `@nestjs/testing`. */
export interface OverridableModule {
  overrideProvider(token: unknown): {
    useValue(value: unknown): unknown;
    useFactory(factory: {
      // biome-ignore lint/suspicious/noExplicitAny: as `@nestjs/testing` declares it
      factory: (...args: any[]) => unknown;
      inject?: unknown[];
    }): unknown;
  };
}

/** What a test changes; see {@link overrideWebSocketManager}. */
export interface WebSocketManagerOverrides {
  /** Where the module takes its time from, a `FakeClock` as a rule. Default: the system's. */
  clock?: Clock;
  /** Over the application's own options, key by key within each section. */
  options?: Partial<WebSocketManagerOptions>;
}

/** Nobody is probed by a canary, and a shutdown waits for no crowd to be spread over time. */
const FOR_TESTS = {
  canary: { intervalMs: 0 },
  drain: { timeoutMs: 500, spreadMs: 0 },
} satisfies Partial<WebSocketManagerOptions>;

/**
 * Makes the tests of an application that imports `WebSocketManagerModule` quick, and leaves no handle open: `app.close()`
 * ends at once, the canary is off, and time passes as the test says. Everything else, `authenticate` above all,
 * stays as the application has it.
 *
 * With a `FakeClock`: until `app.close()` time stands still but for `advance`; after it time passes by itself, so that a
 * shutdown needs no help. While it is advanced, sockets of the test's own process are served between any two moments, so
 * their heartbeats are answered in time.
 *
 * @returns the builder it was given.
 * @throws WebSocketManagerOptionsError when the module is compiled, if an option cannot be used.
 *
 * @example
 * ```ts
 * const clock = new FakeClock();
 * const builder = Test.createTestingModule({ imports: [AppModule] });
 * const testing = await overrideWebSocketManager(builder, {
 *   clock,
 *   options: { limits: { managersPerUser: 2 } },
 * }).compile();
 * const app = testing.createNestApplication();
 * await app.listen(0);
 * // ... connect, then let ten minutes pass:
 * await clock.advance(600_000);
 * await app.close();
 * ```
 */
export function overrideWebSocketManager<Builder extends OverridableModule>(
  builder: Builder,
  { clock, options = {} }: WebSocketManagerOverrides = {},
): Builder {
  builder.overrideProvider(RESOLVED_OPTIONS).useFactory({
    factory: (ofApplication: WebSocketManagerOptions): ResolvedOptions =>
      resolveOptions([FOR_TESTS, options].reduce<WebSocketManagerOptions>(merged, ofApplication)),
    inject: [MODULE_OPTIONS],
  });
  if (clock) builder.overrideProvider(Clock).useValue(clock);
  return builder;
}

/** `over` wins; a section of both is put together key by key. */
function merged<T extends object>(under: T, over: Partial<T>): T {
  const result = { ...under, ...over };
  for (const key of Object.keys(over) as (keyof T)[]) {
    const [a, b] = [under?.[key], over[key]];
    if (isSection(a) && isSection(b)) result[key] = { ...a, ...b } as (typeof result)[typeof key];
  }
  return result;
}

function isSection(value: unknown): value is object {
  return typeof value === 'object' && value !== null && Object.getPrototypeOf(value) === Object.prototype;
}
