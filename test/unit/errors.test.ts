import { describe, expect, it } from 'vitest';
import { LimitFunctionError, ManagerLimitError, NodeUnavailableError } from '../../src/admission/errors.js';

describe('errors of an admission in code', () => {
  it('say which of the two it is', () => {
    expect(new NodeUnavailableError('draining', 1).message).toMatch(/drain/);
    expect(new NodeUnavailableError('try_later', 1).message).toMatch(/full/);
  });

  it.each([
    [new ManagerLimitError(1_500), 'ManagerLimitError', 'WSM_OVER_LIMIT', 1_500],
    [new NodeUnavailableError('try_later', 700), 'NodeUnavailableError', 'WSM_NODE_FULL', 700],
    [new NodeUnavailableError('draining', 900), 'NodeUnavailableError', 'WSM_DRAINING', 900],
    [new LimitFunctionError('it threw'), 'LimitFunctionError', 'WSM_LIMIT_FUNCTION', undefined],
  ])('have a name and a code: %s', (error, name, code, retryAfterMs) => {
    expect(error).toBeInstanceOf(Error);
    expect(error).toMatchObject({ name, code });
    expect((error as { retryAfterMs?: number }).retryAfterMs).toBe(retryAfterMs);
    expect(error.message.length).toBeGreaterThan(0);
  });

  it('keep what a limit function threw', () => {
    const cause = new Error('directory away');
    expect(new LimitFunctionError('it threw', { cause })).toMatchObject({
      cause,
      message: 'limits.managersPerUser: it threw',
    });
  });
});
