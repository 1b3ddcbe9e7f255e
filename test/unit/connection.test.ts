import { describe, expect, it } from 'vitest';
import { Core } from '../support/core.js';

describe('a WebSocket class of the application that throws', () => {
  it.each(['send', 'close'])(
    'at %s keeps no session from its end, and no other from its own',
    async (method) => {
      const core = await Core.start();
      const { manager, socket } = core.place({ userId: 'alice' });
      const { manager: other, socket: sound } = core.place({ userId: 'alice' });
      if (!socket || !sound) return expect.unreachable();
      Object.assign(socket, {
        [method]: () => {
          throw new Error('broken');
        },
      });
      const ended = manager.close({ reason: 'terminated_by_admin' });
      const otherEnded = other.close({ reason: 'terminated_by_admin' });
      expect(core.count('alice')).toBe(0);
      expect(core.reportedOf('hook_failed')).toMatchObject([
        { hook: 'WebSocket', error: { message: 'broken' } },
      ]);
      expect(sound.closeAsked?.code).toBe(4520);
      await core.clock.advance(2_001);
      expect([socket.terminated, sound.terminated]).toEqual([true, false]);
      expect(await Promise.all([ended, otherEnded])).toEqual([true, true]);
    },
  );
});
