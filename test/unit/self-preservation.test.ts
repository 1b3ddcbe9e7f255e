import { describe, expect, it } from 'vitest';
import { LOOKS_PER_INTERVAL } from '../../src/liveness/assessment.js';
import { SelfPreservation } from '../../src/liveness/self-preservation.js';

const INTERVAL_MS = 1_000;
const SLOTS = 8;
const TICKS_PER_BEAT = SLOTS * LOOKS_PER_INTERVAL;
const TICK_MS = INTERVAL_MS / TICKS_PER_BEAT;

function setup(connections: number) {
  const changes: [boolean, number, number][] = [];
  const preservation = new SelfPreservation(INTERVAL_MS, SLOTS, (...change) => changes.push(change));
  let now = 0;
  const tick = (ticks = 1) => {
    for (let i = 0; i < ticks; i++) {
      now += TICK_MS;
      preservation.tick(now, connections);
    }
  };
  const silence = (count: number) => {
    for (let i = 0; i < count; i++) preservation.noteSilence();
  };
  return { preservation, changes, tick, silence };
}

describe('self-preservation', () => {
  it.each([
    [200, 100, false],
    [200, 101, true],
    [101, 51, true],
    [101, 50, false],
    [100, 100, false],
  ])('of %d connections with %d silent: %s', (connections, silent, isActive) => {
    const { preservation, changes, tick, silence } = setup(connections);
    tick();
    silence(silent);
    expect(preservation.isActive).toBe(false);
    tick();
    expect(preservation.isActive).toBe(isActive);
    expect(changes).toEqual(isActive ? [[true, silent, connections]] : []);
  });

  it('counts who fell silent within one beat, and nobody before', () => {
    for (const [ticksBetween, isActive] of [
      [TICKS_PER_BEAT - 1, true],
      [TICKS_PER_BEAT, false],
    ] as const) {
      const { preservation, tick, silence } = setup(200);
      silence(60);
      tick(ticksBetween);
      silence(60);
      tick();
      expect(preservation.isActive, `${ticksBetween} ticks`).toBe(isActive);
    }
  });

  it('lasts three beats, and begins anew only with new silence', () => {
    const { preservation, changes, tick, silence } = setup(200);
    silence(150);
    tick();
    tick(3 * TICKS_PER_BEAT - 1);
    silence(30);
    expect(preservation.isActive).toBe(true);
    tick();
    expect(preservation.isActive).toBe(false);
    expect(changes).toEqual([
      [true, 150, 200],
      [false, 0, 200],
    ]);
    silence(100);
    tick(2 * TICKS_PER_BEAT);
    expect(preservation.isActive).toBe(false);
    silence(101);
    tick();
    expect(preservation.isActive).toBe(true);
  });
});
