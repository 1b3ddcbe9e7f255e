import { describe, expect, it } from 'vitest';
import { WebSocketManagerService } from '../../src/admission/websocket-manager.service.js';
import { Core } from '../support/core.js';

async function setup() {
  const core = await Core.start();
  const service = new WebSocketManagerService(core.registry, core.clock, core.events);
  const first = core.place({ userId: 'alice', openedAgoMs: 60_000, activeAgoMs: 9_000 });
  const second = core.place({ userId: 'alice', sessionKey: 'tab', openedAgoMs: 60_000 });
  core.attach(second.manager);
  const bob = core.place({ userId: 'bob', openedAgoMs: 60_000 });
  return { core, service, first, second, bob };
}

describe('WebSocketManagerService', () => {
  it('knows the sessions of a user, oldest first, and each by its id', async () => {
    const { service, first, second } = await setup();
    expect(service.managersOf('alice')).toEqual([first.manager, second.manager]);
    expect(service.managersOf('nobody')).toEqual([]);
    expect(service.manager(second.manager.id)).toBe(second.manager);
    expect(service.manager('nobody')).toBeUndefined();
  });

  it('sends to every connection of a user, or of the node, and says to how many', async () => {
    const { service, first, bob } = await setup();
    expect(service.sendToUser('alice', 'news', { n: 1 })).toBe(3);
    expect(service.sendToUser('nobody', 'news', { n: 1 })).toBe(0);
    expect(first.socket?.sent).toEqual(['{"event":"news","data":{"n":1}}']);
    expect(bob.socket?.sent).toEqual([]);
    expect(service.broadcast('all', 2)).toBe(4);
    expect(bob.socket?.sent).toEqual(['{"event":"all","data":2}']);
  });

  it('serialises nothing for who is not here', async () => {
    const { service } = await setup();
    const loop: Record<string, unknown> = {};
    loop.self = loop;
    expect(service.sendToUser('nobody', 'news', loop)).toBe(0);
  });

  it('ends every session of a user, on the evidence of the operator, and nobody else', async () => {
    const { core, service, first, second, bob } = await setup();
    expect(service.disconnectUser('alice')).toBe(2);
    expect([first.manager.endedBy, second.manager.endedBy]).toEqual([
      'terminated_by_admin',
      'terminated_by_admin',
    ]);
    expect(first.socket?.closeAsked?.code).toBe(4520);
    expect(bob.manager.isOpen).toBe(true);
    expect(core.reportedOf('evicted')[0]).toMatchObject({
      reason: 'terminated_by_admin',
      evidence: { signal: 'operator', inactiveForMs: 9_000 },
    });
    expect(service.disconnectUser('alice')).toBe(0);
  });

  it('ends one session, and says whether there was one', async () => {
    const { service, first, second } = await setup();
    expect(service.disconnectManager(second.manager.id)).toBe(true);
    expect(service.disconnectManager(second.manager.id)).toBe(false);
    expect([first.manager.isOpen, second.manager.isOpen]).toEqual([true, false]);
  });
});
