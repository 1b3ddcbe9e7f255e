import 'reflect-metadata';
import { describe, expect, it } from 'vitest';
import { ManagerIds } from '../../src/admission/websocket-manager.factory.js';

describe('ManagerIds', () => {
  it('are never the same, and need no escaping in a URL', () => {
    const [ids, others] = [new ManagerIds(), new ManagerIds()];
    const made = Array.from({ length: 1_000 }, (_, i) => (i % 2 ? ids : others).next());
    expect(new Set(made).size).toBe(1_000);
    for (const id of made) expect(id).toMatch(/^[\w-]{22}$/);
  });

  it('are random in every part', () => {
    const ids = new ManagerIds();
    const made = Array.from({ length: 2_000 }, () => Buffer.from(ids.next(), 'base64url'));
    for (let bit = 0; bit < 128; bit++) {
      const set = made.filter((bytes) => ((bytes[bit >> 3] ?? 0) >> (bit & 7)) & 1).length;
      // Six standard deviations around the half.
      expect(Math.abs(set - 1_000)).toBeLessThan(6 * Math.sqrt(500));
    }
  });
});
