/** The user is at the limit and nobody may be evicted yet. */
export class ManagerLimitError extends Error {
  readonly code = 'WSM_OVER_LIMIT';

  constructor(
    /** Who asks again after so many milliseconds is admitted, unless the same user filled the place meanwhile. */
    readonly retryAfterMs: number,
  ) {
    super(`The user is at the limit of managers; try again in ${retryAfterMs} ms`);
    this.name = 'ManagerLimitError';
  }
}

/** This node is full (`limits.managersPerNode`) or draining. */
export class NodeUnavailableError extends Error {
  readonly code: 'WSM_NODE_FULL' | 'WSM_DRAINING';

  constructor(
    reason: 'try_later' | 'draining',
    readonly retryAfterMs: number,
  ) {
    super(reason === 'draining' ? 'This node is draining' : 'This node is full');
    this.code = reason === 'draining' ? 'WSM_DRAINING' : 'WSM_NODE_FULL';
    this.name = 'NodeUnavailableError';
  }
}

/** `limits.managersPerUser` is a function, and it threw or returned something that is no limit. */
export class LimitFunctionError extends Error {
  readonly code = 'WSM_LIMIT_FUNCTION';

  constructor(detail: string, options?: ErrorOptions) {
    super(`limits.managersPerUser: ${detail}`, options);
    this.name = 'LimitFunctionError';
  }
}
