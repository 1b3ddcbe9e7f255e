import { timingSafeEqual } from 'node:crypto';
import type { ExecutionContext } from '@nestjs/common';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { AdminTokenGuard } from '../../src/reference-app/admin-token.guard.js';

vi.mock('node:crypto', async (original) => {
  const crypto = await original<typeof import('node:crypto')>();
  return { ...crypto, timingSafeEqual: vi.fn(crypto.timingSafeEqual) };
});

const compared = vi.mocked(timingSafeEqual);
const TOKEN = 'an-operators-token';

function isLetIn(authorization: string | undefined): boolean {
  const request = { headers: authorization === undefined ? {} : { authorization } };
  const context = { switchToHttp: () => ({ getRequest: () => request }) } as unknown as ExecutionContext;
  try {
    return new AdminTokenGuard(TOKEN).canActivate(context);
  } catch {
    return false;
  }
}

beforeEach(() => void compared.mockClear());

describe("the comparison of an operator's token", () => {
  it.each([
    ['none at all', undefined],
    ['nothing', 'Bearer '],
    ['the first character', 'Bearer a'],
    ['all but the last character', `Bearer ${TOKEN.slice(0, -1)}`],
    ['one character too many', `Bearer ${TOKEN}x`],
    ['something long', `Bearer ${'x'.repeat(10_000)}`],
    ['another scheme', `Basic ${TOKEN}`],
    ['the token', `Bearer ${TOKEN}`],
  ])(
    'takes equally long for %s: once, in constant time, over as many bytes as ever',
    (_what, authorization) => {
      expect(isLetIn(authorization)).toBe(authorization === `Bearer ${TOKEN}`);
      expect(compared.mock.calls.map(([a, b]) => [a.byteLength, b.byteLength])).toEqual([[32, 32]]);
    },
  );
});
