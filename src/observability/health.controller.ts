import { Controller, Get, ServiceUnavailableException } from '@nestjs/common';
import { HealthCheck, HealthCheckService } from '@nestjs/terminus';
import { type WebSocketHealthDetail, WebSocketHealthService } from './websocket-health.service.js';

const KEY = 'websocket_managers';

/** The three routes that an orchestrator asks. Switched on with `health: true`. */
@Controller('health')
export class WebSocketHealthController {
  constructor(
    private readonly health: HealthCheckService,
    private readonly webSockets: WebSocketHealthService,
  ) {}

  /** Everything. */
  @Get()
  @HealthCheck()
  check() {
    return this.health.check([() => this.webSockets.isHealthy(KEY)]);
  }

  /** That the process answers, and nothing else: trouble with cleanup must not restart a pod. */
  @Get('live')
  live(): { status: 'ok' } {
    return { status: 'ok' };
  }

  /** Whether new connections should come here. */
  @Get('ready')
  ready(): { status: 'ok'; details: Record<typeof KEY, WebSocketHealthDetail> } {
    const detail = this.webSockets.detail();
    const details = { [KEY]: detail };
    if (detail.status === 'down') throw new ServiceUnavailableException({ status: 'error', details });
    return { status: 'ok', details };
  }
}
