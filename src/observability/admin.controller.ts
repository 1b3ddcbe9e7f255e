import {
  BadRequestException,
  Body,
  Delete,
  Get,
  HttpCode,
  Inject,
  NotFoundException,
  Param,
  type PipeTransform,
  Post,
  Query,
  Req,
  Res,
  ServiceUnavailableException,
} from '@nestjs/common';
import { HttpAdapterHost } from '@nestjs/core';
import { WebSocketManagerService } from '../admission/websocket-manager.service.js';
import { CircuitBreakerService } from '../cleanup/circuit-breaker.service.js';
import { CleanupService, type ManualCleanup } from '../cleanup/cleanup.service.js';
import type { CleanupReport } from '../cleanup/cleanup-run.js';
import { Clock } from '../clock/clock.js';
import { CLEANUP_LEVELS, type CleanupLevel } from '../events/vocabulary.js';
import { rulesOf } from '../liveness/assessment.js';
import { ManagerRegistry } from '../manager/manager-registry.js';
import { UserRecord } from '../manager/user-record.js';
import { NAME_MAX_LENGTH } from '../options/user-context.js';
import { RESOLVED_OPTIONS, type ResolvedOptions } from '../options/websocket-manager-options.interface.js';
import { AdminViews, type EvictionList, type UserList, type UserView } from './admin-view.js';
import { AuditService } from './audit.service.js';
import { OperatorStreams, type PlatformRequest, type PlatformResponse } from './operator-streams.js';
import { type WebSocketHealthDetail, WebSocketHealthService } from './websocket-health.service.js';

const DEFAULT_USERS = 100;
const MOST_USERS = 1_000;

type Parameters = Readonly<Record<string, string | undefined>>;

/** Passes on a request's query; 400 for a parameter that the route does not have. Values are not repeated: they may be secret. */
class QueryOf implements PipeTransform<unknown, Parameters> {
  private readonly allowed: readonly string[];

  constructor(...allowed: string[]) {
    this.allowed = allowed;
  }

  transform(query: unknown): Parameters {
    const parameters = (query ?? {}) as Parameters;
    const unknown = Object.keys(parameters).filter((name) => !this.allowed.includes(name));
    if (unknown.length === 0) return parameters;
    const allowed = this.allowed.length > 0 ? this.allowed.join(', ') : 'no parameters';
    throw new BadRequestException(`query: got ${unknown.map(shown).join(', ')}; allowed: ${allowed}`);
  }
}

const NO_QUERY = new QueryOf();

/**
 * The operator's API. A real Nest controller, so the application's global prefix, guards and filters apply; its own
 * guards and path are put on by `guardedAdmin`, and there is no way to mount it without guards.
 */
export class AdminController {
  private readonly views: AdminViews;

  constructor(
    @Inject(ManagerRegistry) private readonly registry: ManagerRegistry,
    @Inject(CircuitBreakerService) private readonly breaker: CircuitBreakerService,
    @Inject(CleanupService) private readonly cleanup: CleanupService,
    @Inject(WebSocketManagerService) private readonly managers: WebSocketManagerService,
    @Inject(WebSocketHealthService) private readonly health: WebSocketHealthService,
    @Inject(AuditService) private readonly audit: AuditService,
    @Inject(OperatorStreams) private readonly streams: OperatorStreams,
    @Inject(HttpAdapterHost) private readonly platform: HttpAdapterHost,
    @Inject(Clock) clock: Clock,
    @Inject(RESOLVED_OPTIONS) private readonly options: ResolvedOptions,
  ) {
    this.views = new AdminViews(clock, rulesOf(options));
  }

  @Get('api/overview')
  overview(@Query(NO_QUERY) _query: Parameters): WebSocketHealthDetail {
    return this.health.detail();
  }

  /** Those under the most pressure first, then by user id. */
  @Get('api/users')
  users(@Query(new QueryOf('minPressure', 'limit', 'after')) query: Parameters): UserList {
    const { minPressure, limit } = query;
    const after = cursorFrom(query.after);
    const least = numberFrom('minPressure', minPressure, 0, 'a number from 0', (value) => value >= 0);
    const most = numberFrom('limit', limit, DEFAULT_USERS, `a whole number from 1 to ${MOST_USERS}`, isCount);
    const isOnlyPressured = least >= this.options.cleanup.proactiveThreshold;
    const users = isOnlyPressured ? this.registry.usersAbovePressure() : this.registry.allUsers;
    const matching = [...users].filter((user) => user.managers.size > 0 && user.pressure >= least);
    const rest = (after ? matching.filter((user) => byPressure(after, user) < 0) : matching).sort(byPressure);
    const page = rest.slice(0, most);
    return {
      users: page.map((user) => this.view(user)),
      total: matching.length,
      next: rest.length > most ? cursorAt(page.at(-1) as UserRecord) : null,
      unanswered: [],
    };
  }

  @Get('api/users/:userId')
  user(@Param('userId') userId: string, @Query(NO_QUERY) _query: Parameters): UserView {
    return this.view(this.userOf(userId));
  }

  @Post('api/users/:userId/cleanup')
  @HttpCode(200)
  clean(
    @Param('userId') userId: string,
    @Query(NO_QUERY) _query: Parameters,
    @Body() body: unknown,
  ): Promise<CleanupReport> {
    return this.cleanup.cleanManually(this.userOf(userId), cleanupFrom(body));
  }

  @Post('api/users/:userId/disconnect')
  @HttpCode(200)
  disconnect(@Param('userId') userId: string, @Query(NO_QUERY) _query: Parameters): { disconnected: number } {
    return { disconnected: this.managers.disconnectUser(this.userOf(userId).userId) };
  }

  @Delete('api/managers/:managerId')
  end(@Param('managerId') managerId: string, @Query(NO_QUERY) _query: Parameters): { disconnected: number } {
    if (!this.managers.disconnectManager(managerId))
      throw new NotFoundException('managerId: no such manager');
    return { disconnected: 1 };
  }

  @Get('api/evictions')
  evictions(@Query(NO_QUERY) _query: Parameters): EvictionList {
    const evictions = this.audit.evictions.map((event) => this.views.eviction(event));
    return { evictions, total: evictions.length, next: null, unanswered: [] };
  }

  /** Server-sent events; not by `@Sse()`: see {@link OperatorStreams}. */
  @Get('api/events')
  events(
    @Query(NO_QUERY) _query: Parameters,
    @Req() request: PlatformRequest,
    @Res() response: PlatformResponse,
  ): void {
    const { streams } = this;
    if (streams.isFull) {
      this.platform.httpAdapter.setHeader(response, 'Retry-After', `${streams.retryAfterSeconds}`);
      throw new ServiceUnavailableException('Too many streams of events are open on this node');
    }
    streams.start(request, response);
  }

  /** The user's record; for one who is not here, an empty one that nobody keeps. */
  private userOf(userId: string): UserRecord {
    if (userId.length > NAME_MAX_LENGTH) {
      throw new BadRequestException(
        `userId: got ${userId.length} characters; allowed: at most ${NAME_MAX_LENGTH}`,
      );
    }
    return this.registry.user(userId) ?? new UserRecord(userId);
  }

  private view(user: UserRecord): UserView {
    const { managersPerUser } = this.options.limits;
    const limit =
      user.limit ?? (typeof managersPerUser === 'number' ? managersPerUser : Number.POSITIVE_INFINITY);
    return this.views.user(user, limit, this.breaker.stateOf(user));
  }
}

function cleanupFrom(body: unknown): ManualCleanup {
  if (typeof body !== 'object' || body === null || Array.isArray(body)) {
    throw new BadRequestException('body: allowed: {"level", "count"?, "dryRun"?}');
  }
  const { level, count, dryRun = false } = body as Record<string, unknown>;
  if (!CLEANUP_LEVELS.includes(level as CleanupLevel)) {
    throw new BadRequestException(`level: got ${shown(level)}; allowed: ${CLEANUP_LEVELS.join(', ')}`);
  }
  const needsCount = level === 'force';
  if ((needsCount || count !== undefined) && !isCount(count)) {
    throw new BadRequestException(
      `count: got ${shown(count)}; allowed: a whole number from 1 to ${MOST_USERS}${needsCount ? ', required for force' : ''}`,
    );
  }
  if (typeof dryRun !== 'boolean') {
    throw new BadRequestException(`dryRun: got ${shown(dryRun)}; allowed: true, false`);
  }
  return { level: level as CleanupLevel, dryRun, ...(count === undefined ? {} : { count: count as number }) };
}

function numberFrom(
  name: string,
  text: string | undefined,
  fallback: number,
  allowed: string,
  isRight: (value: number) => boolean,
): number {
  if (text === undefined) return fallback;
  const value = typeof text === 'string' && text.trim() !== '' ? Number(text) : Number.NaN;
  if (!isRight(value)) throw new BadRequestException(`${name}: got ${shown(text)}; allowed: ${allowed}`);
  return value;
}

function isCount(value: unknown): boolean {
  return Number.isSafeInteger(value) && (value as number) >= 1 && (value as number) <= MOST_USERS;
}

function shown(value: unknown): string {
  return (JSON.stringify(value) ?? String(value)).slice(0, 80);
}

/** Where a page of users ends. */
type Cursor = Pick<UserRecord, 'pressure' | 'userId'>;

function byPressure(a: Cursor, b: Cursor): number {
  return b.pressure - a.pressure || Number(a.userId > b.userId) - Number(a.userId < b.userId);
}

function cursorAt({ pressure, userId }: Cursor): string {
  return Buffer.from(JSON.stringify([pressure, userId])).toString('base64url');
}

function cursorFrom(text: string | undefined): Cursor | undefined {
  if (text === undefined) return undefined;
  try {
    const [pressure, userId] = JSON.parse(Buffer.from(text, 'base64url').toString()) as unknown[];
    if (typeof pressure === 'number' && typeof userId === 'string') return { pressure, userId };
  } catch {
    // Not JSON, or not a string: the same answer.
  }
  throw new BadRequestException(`after: got ${shown(text)}; allowed: the "next" of a previous page`);
}
