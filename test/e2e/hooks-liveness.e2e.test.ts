import { setTimeout as sleep } from 'node:timers/promises';
import { Injectable, type Type } from '@nestjs/common';
import { concatMap, filter, map, merge, share, tap } from 'rxjs';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import {
  type ConnectionDetector,
  type DetectorView,
  WebSocketDetector,
  type WebSocketManagerOptions,
} from '../../src/index.js';
import { startApp } from '../support/app.js';
import { connect } from '../support/client.js';
import { watchForFatalErrors } from '../support/fatal-errors.js';

const QUICK: Partial<WebSocketManagerOptions> = {
  heartbeat: { intervalMs: 200, probeTimeoutMs: 100 },
};

const fails = () => {
  throw new Error('thrown');
};

beforeEach(() => {
  watchForFatalErrors();
});

function detector(name: string, examine: (view: DetectorView) => unknown): Type<ConnectionDetector> {
  @Injectable()
  @WebSocketDetector()
  class Detector {
    readonly name = name;
    examine(view: DetectorView): never {
      return examine(view) as never;
    }
  }
  return Detector;
}

const ofBob = (opinion: () => unknown) => (view: DetectorView) =>
  view.userId === 'bob' ? opinion() : undefined;

describe('a detector of the application', () => {
  it('that says dead ends the connection, and its name is the evidence', async () => {
    const views: DetectorView[] = [];
    const signedOut = detector('signed_out', (view) => {
      views.push(view);
      return Promise.resolve(view.userId === 'bob' ? 'dead' : undefined);
    });
    const { url, of } = await startApp({ options: QUICK, providers: [signedOut] });
    const alice = await connect(`${url}/ws?userId=alice`);
    const bob = await connect(`${url}/ws?userId=bob&sessionKey=tab`);
    expect(await bob.closed()).toEqual({ code: 4201, reason: 'no_pong' });
    expect(of('zombie_detected').map(({ userId, evidence }) => [userId, evidence.signal])).toEqual([
      ['bob', 'signed_out'],
    ]);
    expect(await alice.echo('alive')).toBe('alive');
    expect(views.find(({ userId }) => userId === 'bob')).toMatchObject({ sessionKey: 'tab', missedPongs: 0 });
  });

  it.each<[string, () => unknown]>([
    ['throws', fails],
    ['rejects', () => Promise.reject(new Error('rejected'))],
    ['hangs', () => new Promise(() => {})],
    ['has no opinion', () => undefined],
    ['says alive', () => 'alive'],
    ['says something else', () => 'perhaps'],
  ])('that %s costs nobody a connection, and the next one is asked', async (_title, opinion) => {
    const second = vi.fn();
    const providers = [detector('first', ofBob(opinion)), detector('second', second)];
    const { url, of } = await startApp({ options: QUICK, providers });
    const alice = await connect(`${url}/ws?userId=alice`);
    const bob = await connect(`${url}/ws?userId=bob`);
    await vi.waitFor(() => expect(second.mock.calls.length).toBeGreaterThan(3));
    await sleep(300);
    expect([await alice.echo('a'), await bob.echo('b')]).toEqual(['a', 'b']);
    expect(of('zombie_detected')).toEqual([]);
    const failed = ['throws', 'rejects', 'hangs'].includes(_title);
    expect(new Set(of('hook_failed').map(({ hook }) => hook))).toEqual(
      new Set(failed ? ['detector first'] : []),
    );
  });
});

describe("a session's own isAlive", () => {
  it.each<[string, () => never, boolean]>([
    ['throws', fails as never, true],
    ['rejects', (() => Promise.reject(new Error('rejected'))) as never, true],
    ['hangs', (() => new Promise(() => {})) as never, true],
    ['says yes', (() => true) as never, true],
    ['says no', (() => false) as never, false],
    ['resolves to no', (() => Promise.resolve(false)) as never, false],
  ])('that %s (stays: %3$s)', async (_title, check, stays) => {
    const { url, service } = await startApp({ options: QUICK });
    const alice = await connect(`${url}/ws?userId=alice`);
    const bob = await connect(`${url}/ws?userId=bob`);
    let asked = 0;
    service.managersOf('bob')[0]?.isAlive(() => {
      asked++;
      return check();
    });
    await vi.waitFor(() => expect(asked).toBeGreaterThan(0));
    if (stays) {
      await sleep(400);
      expect(await bob.echo('here')).toBe('here');
    } else {
      expect((await bob.closed()).code).toBe(4201);
      expect(service.managersOf('bob')).toEqual([]);
    }
    expect(await alice.echo('here')).toBe('here');
  });
});

describe('listeners of events$ behind operators', () => {
  it('that fail end no more than their own subscription', async () => {
    const { service, url } = await startApp();
    const { events$ } = service;
    const admitted$ = events$.pipe(filter(({ type }) => type === 'admitted'));
    const heard: unknown[] = [];
    admitted$.subscribe(fails);
    admitted$.subscribe(async () => Promise.reject(new Error('rejected')));
    events$.pipe(map(fails)).subscribe();
    events$.pipe(tap(fails)).subscribe({ next: () => {} });
    events$.pipe(concatMap(() => Promise.reject(new Error('rejected')))).subscribe();
    events$.pipe(share()).subscribe(fails);
    events$.pipe(map(({ type }) => type)).subscribe({ next: fails, error: fails, complete: fails });
    admitted$.subscribe(({ type }) => heard.push(type));
    await connect(`${url}/ws?userId=alice`);
    await connect(`${url}/ws?userId=bob`);
    await sleep(50);
    expect(heard).toEqual(['admitted', 'admitted']);
  });

  it('that listen to other streams too are heard all the same', async () => {
    const { service, url, close } = await startApp();
    const types: string[] = [];
    const completed = vi.fn();
    merge(service.events$, service.events$).subscribe({
      next: ({ type }) => types.push(type),
      complete: completed,
    });
    await connect(`${url}/ws?userId=alice`);
    expect(types).toEqual(['admitted', 'admitted', 'attached', 'attached']);
    await close();
    expect(completed).toHaveBeenCalledTimes(1);
  });
});
