/**
 * Every reason for which we refuse or close, in one table: the close code, the HTTP status before the
 * handshake, and whether the client should come back. The codes read right in both of the known band systems
 * (Pusher: 41xx back off, 42xx reconnect; Centrifugo: 45xx and above are final).
 */
export const CLOSE_REASONS = {
  unauthenticated: { code: 4501, httpStatus: 401, retryable: false, text: 'Authentication failed' },
  forbidden_origin: { code: undefined, httpStatus: 403, retryable: false, text: 'Origin not allowed' },
  bad_request: { code: undefined, httpStatus: 400, retryable: false, text: 'Malformed request' },
  over_limit: { code: 4129, httpStatus: 429, retryable: true, text: 'Too many sessions of this user' },
  try_later: { code: 1013, httpStatus: 503, retryable: true, text: 'This server is full' },
  draining: { code: 1012, httpStatus: 503, retryable: true, text: 'This server is shutting down' },
  no_pong: { code: 4201, httpStatus: undefined, retryable: true, text: 'No answer to pings' },
  idle: { code: 4202, httpStatus: undefined, retryable: true, text: 'Idle for too long' },
  evicted: {
    code: 4510,
    httpStatus: undefined,
    retryable: false,
    text: 'Ended to make room for a newer session',
  },
  superseded: { code: 4509, httpStatus: undefined, retryable: false, text: 'Replaced by a newer connection' },
  slow_consumer: { code: 4108, httpStatus: undefined, retryable: true, text: 'Reading too slowly' },
  token_expired: { code: 4106, httpStatus: undefined, retryable: true, text: 'Credentials expired' },
  terminated_by_admin: { code: 4520, httpStatus: undefined, retryable: false, text: 'Ended by an operator' },
  internal: { code: 1011, httpStatus: 500, retryable: true, text: 'Internal error' },
} as const satisfies Record<string, CloseReasonEntry>;

interface CloseReasonEntry {
  /** WebSocket close code; `undefined`: always told by HTTP. */
  readonly code: number | undefined;
  /** Status of a refusal before the handshake; `undefined`: only an open connection ends so. */
  readonly httpStatus: number | undefined;
  /** Whether the client should try again. */
  readonly retryable: boolean;
  readonly text: string;
}

/** The reason tokens of close frames, refusals, events and metrics. */
export type CloseReason = keyof typeof CLOSE_REASONS;

/** Reasons that a refusal at the door can have. */
export type RejectionReason =
  | 'unauthenticated'
  | 'forbidden_origin'
  | 'bad_request'
  | 'over_limit'
  | 'try_later'
  | 'draining'
  | 'internal';

/** Reasons that an open connection can be closed for. */
export type DisconnectReason = Exclude<CloseReason, 'forbidden_origin' | 'bad_request'>;

/** Why a manager ended: a close of ours, its client left, or nobody came back within its resume window. */
export type EndReason = DisconnectReason | 'left' | 'inactive';

/** The close codes that this package sends. */
export const WsCloseCode = {
  /** 1011: an application hook failed. Back off. */
  Internal: 1011,
  /** 1012: the server drains. Reconnect, jittered. */
  Draining: 1012,
  /** 1013: the node is full. Back off. */
  TryLater: 1013,
  /** 4106: refresh the credentials, then reconnect. */
  TokenExpired: 4106,
  /** 4108: too much was waiting to be sent. Back off, resume. */
  SlowConsumer: 4108,
  /** 4129: the user is at the limit and nobody may be evicted yet. Wait `retryAfterMs`. */
  OverLimit: 4129,
  /** 4201: taken for dead. Reconnect. */
  NoPong: 4201,
  /** 4202: idle for `cleanup.idleTimeoutMs`. Reconnect on use. */
  Idle: 4202,
  /** 4501: get new credentials first. */
  Unauthenticated: 4501,
  /** 4509: a newer connection of the same session took over. Stay away. */
  Superseded: 4509,
  /** 4510: made room for a newer session. Stay away, offer 'use here'. */
  Evicted: 4510,
  /** 4520: an operator ended it. Stay away. */
  TerminatedByAdmin: 4520,
} as const satisfies Record<string, Extract<(typeof CLOSE_REASONS)[CloseReason]['code'], number>>;

export type WsCloseCode = (typeof WsCloseCode)[keyof typeof WsCloseCode];

/** What the client is told in the one frame before a close of ours. */
export interface ClosingNotice {
  readonly code: number;
  readonly reason: CloseReason;
  readonly retryable: boolean;
  readonly retryAfterMs?: number;
}

/** The frame `{"event":"ws:closing","data":{...}}`. */
export function closingFrame(code: number, reason: CloseReason, retryAfterMs?: number): string {
  const notice: ClosingNotice = {
    code,
    reason,
    retryable: CLOSE_REASONS[reason].retryable,
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
  };
  return JSON.stringify({ event: 'ws:closing', data: notice });
}
