import { describe, expect, it } from 'vitest';
import { HeartbeatWheel } from '../../src/liveness/heartbeat-wheel.js';
import type { Connection } from '../../src/manager/connection.js';

const aConnection = () => ({ slot: -1, position: -1 }) as unknown as Connection;

function turn(wheel: HeartbeatWheel, visit: (connection: Connection) => void): void {
  for (let i = 0; i < wheel.slotCount; i++) {
    for (const connection of wheel.advance()) if (connection.slot >= 0) visit(connection);
  }
}

describe('HeartbeatWheel', () => {
  it.each([100, 200, 1_000, 3_300, 15_000, 60_000])('turns once in a quarter of %d ms', (intervalMs) => {
    const wheel = new HeartbeatWheel(intervalMs);
    expect(wheel.tickMs * wheel.slotCount).toBeCloseTo(intervalMs / 4, 6);
    expect(wheel.tickMs).toBeGreaterThanOrEqual(25);
    // Or the first ping of a long interval would not be in time.
    expect(wheel.tickMs).toBeLessThanOrEqual(750);
  });

  it('has not more slots than are of use, however long the interval', () => {
    expect(new HeartbeatWheel(600_000).tickMs).toBe(750);
    expect(new HeartbeatWheel(86_400_000).slotCount).toBe(400);
  });

  it('visits every connection once a turn, and in the slot that was asked for', () => {
    const wheel = new HeartbeatWheel(15_000);
    const [early, late] = [aConnection(), aConnection()];
    wheel.add(early, 1);
    wheel.add(late, 4);
    const seen: [Connection, number][] = [];
    for (let tick = 1; tick <= 2 * wheel.slotCount; tick++)
      for (const connection of wheel.advance()) seen.push([connection, tick]);
    const { slotCount } = wheel;
    expect(seen).toEqual([
      [early, 1],
      [late, 4],
      [early, slotCount + 1],
      [late, slotCount + 4],
    ]);
  });

  it('forgets who is removed, and nobody else', () => {
    const wheel = new HeartbeatWheel(15_000);
    const all = Array.from({ length: 40 }, aConnection);
    for (const connection of all) wheel.add(connection, 3);
    const removed = all.filter((_, i) => i % 3 === 0);
    for (const connection of removed) {
      wheel.remove(connection);
      wheel.remove(connection);
    }
    const seen = new Set<Connection>();
    turn(wheel, (connection) => seen.add(connection));
    expect(seen).toEqual(new Set(all.filter((connection) => !removed.includes(connection))));
  });

  it('lets a visit remove who is visited', () => {
    const wheel = new HeartbeatWheel(15_000);
    const all = Array.from({ length: 10 }, aConnection);
    for (const connection of all) wheel.add(connection, 3);
    const seen: Connection[] = [];
    turn(wheel, (connection) => {
      seen.push(connection);
      wheel.remove(connection);
    });
    expect(new Set(seen)).toEqual(new Set(all));
    expect(seen).toHaveLength(10);
    turn(wheel, () => expect.unreachable());
  });

  it('lets a visit remove somebody else, without visiting anybody twice', () => {
    const wheel = new HeartbeatWheel(15_000);
    const all = Array.from({ length: 10 }, aConnection);
    for (const connection of all) wheel.add(connection, 3);
    const seen: Connection[] = [];
    turn(wheel, (connection) => {
      seen.push(connection);
      if (seen.length === 1) wheel.remove(all[2] as Connection);
    });
    expect(seen).not.toContain(all[2]);
    expect(new Set(seen).size).toBe(seen.length);
    expect(seen).toHaveLength(9);
  });

  it.each([100, 1_000, 10_000])('spreads a crowd of %d that comes together', (count) => {
    const wheel = new HeartbeatWheel(15_000);
    const runs = Array.from({ length: count }, () => wheel.add(aConnection(), 5));
    let most = 0;
    for (let slot = 0; slot < wheel.slotCount; slot++) {
      most = Math.max(most, wheel.advance().length);
    }
    expect(most).toBeLessThanOrEqual(16 + Math.max(16, (1.25 * count) / wheel.slotCount));
    // ... and each slot's part over the four looks of an interval.
    const ofLook = [0, 1, 2, 3].map((look) => runs.filter((run) => run % 4 === look).length);
    if (count >= 1_000) expect(Math.max(...ofLook)).toBeLessThanOrEqual(Math.min(...ofLook) * 1.5);
  });

  it('keeps those together who come one after another, and lets nobody wait for them', () => {
    const wheel = new HeartbeatWheel(15_000);
    const all = Array.from({ length: 4_000 }, aConnection);
    for (const connection of all) wheel.add(connection, 5);
    const moves = all.filter((connection, i) => connection.slot !== (all[i - 1] ?? connection).slot);
    expect(moves.length).toBeLessThanOrEqual(all.length / 16);
    // A newcomer of another time comes into its own slot, where that is not crowded.
    const other = aConnection();
    wheel.remove(all[0] as Connection);
    const seen: number[] = [];
    const empty = new HeartbeatWheel(15_000);
    empty.add(aConnection(), 1);
    empty.add(other, 3);
    for (let tick = 1; tick <= empty.slotCount; tick++) if (empty.advance().includes(other)) seen.push(tick);
    expect(seen).toEqual([3]);
  });
});
