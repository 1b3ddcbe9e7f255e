import { describe, expect, it } from 'vitest';
import { checkUserContext, InvalidUserContextError } from '../../src/options/user-context.js';

function fieldAtFault(context: unknown): string | undefined {
  try {
    checkUserContext(context);
    return undefined;
  } catch (error) {
    if (error instanceof InvalidUserContextError) return error.field;
    throw error;
  }
}

describe('checkUserContext', () => {
  it('fills in what was left out', () => {
    expect(checkUserContext({ userId: 'alice' })).toEqual({
      userId: 'alice',
      sessionKey: undefined,
      priority: 0,
      expiresAt: undefined,
      metadata: undefined,
    });
  });

  it('takes what it is given', () => {
    const metadata = { plan: 'pro' };
    const context = { userId: 'alice', sessionKey: 'tab-1', priority: -2.5, expiresAt: 5, metadata };
    expect(checkUserContext(context)).toEqual(context);
    expect(checkUserContext({ userId: 'a', expiresAt: new Date(77) }).expiresAt).toBe(77);
    expect(checkUserContext({ userId: 'x'.repeat(256), sessionKey: '日本 🙂' }).sessionKey).toBe('日本 🙂');
  });

  it.each([
    ['nothing', undefined, 'context'],
    ['null', null, 'context'],
    ['a string', 'alice', 'context'],
    ['no user', {}, 'userId'],
    ['an empty user', { userId: '' }, 'userId'],
    ['a number', { userId: 7 }, 'userId'],
    ['an endless user', { userId: 'x'.repeat(257) }, 'userId'],
    ['a newline', { userId: 'a\nb' }, 'userId'],
    ['a NUL', { userId: 'a\0' }, 'userId'],
    ['a C1 control', { userId: 'a\u0085' }, 'userId'],
    ['an empty key', { userId: 'a', sessionKey: '' }, 'sessionKey'],
    ['a key of null', { userId: 'a', sessionKey: null }, 'sessionKey'],
    ['an endless key', { userId: 'a', sessionKey: 'x'.repeat(257) }, 'sessionKey'],
    ['a tab in the key', { userId: 'a', sessionKey: 'a\tb' }, 'sessionKey'],
    ['a priority that is none', { userId: 'a', priority: Number.NaN }, 'priority'],
    ['an endless priority', { userId: 'a', priority: Number.POSITIVE_INFINITY }, 'priority'],
    ['a priority in words', { userId: 'a', priority: 'high' }, 'priority'],
    ['an invalid date', { userId: 'a', expiresAt: new Date('x') }, 'expiresAt'],
    ['a date in words', { userId: 'a', expiresAt: 'tomorrow' }, 'expiresAt'],
  ])('refuses %s', (_, context, field) => {
    expect(fieldAtFault(context)).toBe(field);
  });

  it('blames the client only for what comes from the client', () => {
    const faults = (['userId', 'sessionKey', 'priority', 'expiresAt', 'context'] as const).filter(
      (field) => new InvalidUserContextError(field, 'x').isClientsFault,
    );
    expect(faults).toEqual(['userId', 'sessionKey']);
  });
});
