import {
  BadRequestException,
  Body,
  Delete,
  Get,
  HttpCode,
  Inject,
  type MessageEvent,
  NotFoundException,
  Param,
  Post,
  Query,
  Sse,
} from '@nestjs/common';
import { map, type Observable } from 'rxjs';
import { WebSocketManagerService } from '../admission/websocket-manager.service.js';
import { CircuitBreakerService } from '../cleanup/circuit-breaker.service.js';
import { CleanupService, type ManualCleanup } from '../cleanup/cleanup.service.js';
import type { CleanupReport } from '../cleanup/cleanup-run.js';
import { Clock } from '../clock/clock.js';
import { textOf } from '../events/line-limiter.js';
import { CLEANUP_LEVELS, type CleanupLevel } from '../events/vocabulary.js';
import type { EvictedEvent, WebSocketManagerEvent } from '../events/websocket-manager-event.js';
import { rulesOf } from '../liveness/assessment.js';
import { ManagerRegistry } from '../manager/manager-registry.js';
import { UserRecord } from '../manager/user-record.js';
import { NAME_MAX_LENGTH } from '../options/user-context.js';
import { RESOLVED_OPTIONS, type ResolvedOptions } from '../options/websocket-manager-options.interface.js';
import { AdminViews, type UserView } from './admin-view.js';
import { AuditService } from './audit.service.js';
import { type WebSocketHealthDetail, WebSocketHealthService } from './websocket-health.service.js';

const DEFAULT_USERS = 100;
const MOST_USERS = 1_000;

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
    @Inject(Clock) clock: Clock,
    @Inject(RESOLVED_OPTIONS) private readonly options: ResolvedOptions,
  ) {
    this.views = new AdminViews(clock, rulesOf(options));
  }

  @Get('api/overview')
  overview(): WebSocketHealthDetail {
    return this.health.detail();
  }

  /** Those under the most pressure first. */
  @Get('api/users')
  users(@Query('minPressure') minPressure?: string, @Query('limit') limit?: string): UserView[] {
    const least = numberFrom('minPressure', minPressure, 0, 'a number from 0', (value) => value >= 0);
    const most = numberFrom('limit', limit, DEFAULT_USERS, `a whole number from 1 to ${MOST_USERS}`, isCount);
    const isOnlyPressured = least >= this.options.cleanup.proactiveThreshold;
    const users = isOnlyPressured ? this.registry.usersAbovePressure() : this.registry.allUsers;
    return [...users]
      .filter((user) => user.managers.size > 0 && user.pressure >= least)
      .sort((a, b) => b.pressure - a.pressure)
      .slice(0, most)
      .map((user) => this.view(user));
  }

  @Get('api/users/:userId')
  user(@Param('userId') userId: string): UserView {
    return this.view(this.userOf(userId));
  }

  @Post('api/users/:userId/cleanup')
  @HttpCode(200)
  clean(@Param('userId') userId: string, @Body() body: unknown): Promise<CleanupReport> {
    return this.cleanup.cleanManually(this.userOf(userId), cleanupFrom(body));
  }

  @Post('api/users/:userId/disconnect')
  @HttpCode(200)
  disconnect(@Param('userId') userId: string): { disconnected: number } {
    return { disconnected: this.managers.disconnectUser(this.userOf(userId).userId) };
  }

  @Delete('api/managers/:managerId')
  end(@Param('managerId') managerId: string): { disconnected: number } {
    if (!this.managers.disconnectManager(managerId))
      throw new NotFoundException('managerId: no such manager');
    return { disconnected: 1 };
  }

  @Get('api/evictions')
  evictions(): EvictedEvent[] {
    return this.audit.evictions;
  }

  @Sse('api/events')
  events(): Observable<MessageEvent> {
    return this.managers.events$.pipe(map((event) => ({ type: event.type, data: serializable(event) })));
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

/** Errors have no fields of their own that JSON would show. */
function serializable(event: WebSocketManagerEvent): object {
  if (!('error' in event)) return event;
  return { ...event, error: textOf(event.error) };
}
