/** Who is connecting: what `authenticate` returns, and what `factory.create` takes. */
export interface UserContext {
  /** The user. 1 to 256 characters, no control characters. */
  userId: string;
  /**
   * The client's own name for a session (a chat thread, a tab). A second connection with the same user and key
   * joins the first one's manager. 1 to 256 characters, no control characters. Default: a session of its own.
   */
  sessionKey?: string | undefined;
  /** Worth among the user's own sessions when one has to go: the lowest goes first. Default: 0. */
  priority?: number | undefined;
  /** When the credentials end (a `Date`, or milliseconds since 1970): the connection is closed with 4106 then. */
  expiresAt?: Date | number | undefined;
  /** Whatever the application wants to find again at `manager.metadata`. */
  metadata?: unknown;
}

/** A user context, checked. */
export interface CheckedUserContext {
  readonly userId: string;
  readonly sessionKey: string | undefined;
  readonly priority: number;
  /** Milliseconds since 1970. */
  readonly expiresAt: number | undefined;
  readonly metadata: unknown;
}

export const NAME_MAX_LENGTH = 256;

/**
 * A user context that cannot be used.
 * `field` says what was wrong; a bad `userId` or `sessionKey` came from the client, the rest is the application's.
 */
export class InvalidUserContextError extends Error {
  readonly code = 'WSM_INVALID_USER_CONTEXT';

  constructor(
    readonly field: 'context' | 'userId' | 'sessionKey' | 'priority' | 'expiresAt',
    allowed: string,
  ) {
    super(`${field}: must be ${allowed}`);
    this.name = 'InvalidUserContextError';
  }

  get isClientsFault(): boolean {
    return this.field === 'userId' || this.field === 'sessionKey';
  }
}

/** Checks what an application hook or a caller gave. Throws {@link InvalidUserContextError}. */
export function checkUserContext(context: unknown): CheckedUserContext {
  if (typeof context !== 'object' || context === null) {
    throw new InvalidUserContextError('context', 'an object with a userId');
  }
  const { userId, sessionKey, priority = 0, expiresAt, metadata } = context as UserContext;
  if (!isName(userId)) throw new InvalidUserContextError('userId', NAME_RULE);
  if (sessionKey !== undefined && !isName(sessionKey)) {
    throw new InvalidUserContextError('sessionKey', NAME_RULE);
  }
  if (typeof priority !== 'number' || !Number.isFinite(priority)) {
    throw new InvalidUserContextError('priority', 'a finite number');
  }
  const expiry = expiresAt instanceof Date ? expiresAt.getTime() : expiresAt;
  if (expiry !== undefined && (typeof expiry !== 'number' || !Number.isFinite(expiry))) {
    throw new InvalidUserContextError('expiresAt', 'a valid Date or milliseconds since 1970');
  }
  return { userId, sessionKey, priority, expiresAt: expiry, metadata };
}

const NAME_RULE = `a string of 1 to ${NAME_MAX_LENGTH} characters without control characters`;
const CONTROL_CHARACTER = /\p{Cc}/u;

function isName(value: unknown): value is string {
  return (
    typeof value === 'string' &&
    value.length > 0 &&
    value.length <= NAME_MAX_LENGTH &&
    !CONTROL_CHARACTER.test(value)
  );
}
