import { Controller, Get, Header, Injectable, Module, type ModuleMetadata } from '@nestjs/common';
import { ConfigModule, ConfigService } from '@nestjs/config';
import { NestFactory } from '@nestjs/core';
import { Interval, ScheduleModule, SchedulerRegistry } from '@nestjs/schedule';
import { HealthCheck, HealthCheckService, TerminusModule } from '@nestjs/terminus';
import { SWEEP_INTERVAL, WebSocketHealthService, WebSocketManagerModule } from 'nestjs-websocket-manager';
import prometheus from 'prom-client';
import { EchoGateway } from './echo.js';
import { byQuery, start } from './start.js';

/** Which of its usual modules the application has: all, one of them, or none. All are installed. */
const HAS = (process.env.HAS ?? 'config schedule terminus prom-client').split(' ');
const where = <T>(name: string, what: T[]): T[] => (HAS.includes(name) ? what : []);
let ticks = 0;

@Injectable()
class Jobs {
  @Interval('tick', 200)
  tick(): void {
    ticks++;
  }
}

@Controller('schedule')
class ScheduleController {
  constructor(private readonly schedule: SchedulerRegistry) {}
  @Get()
  intervals() {
    const isSwept = this.schedule.doesExist('interval', SWEEP_INTERVAL);
    return { intervals: this.schedule.getIntervals(), isSwept, ticks };
  }
}

/** The application's own health route, with our indicator among its others. */
@Controller('my-health')
class HealthController {
  constructor(
    private readonly health: HealthCheckService,
    private readonly webSockets: WebSocketHealthService,
  ) {}
  @Get()
  @HealthCheck()
  check() {
    return this.health.check([
      () => ({ database: { status: 'up' } }),
      () => this.webSockets.isHealthy('websockets'),
    ]);
  }
}

@Controller('metrics')
class MetricsController {
  @Get()
  @Header('Content-Type', 'text/plain')
  metrics(): Promise<string> {
    return prometheus.register.metrics();
  }
}

const limits = { managersPerUser: 2 };
const ways: Record<string, () => NonNullable<ModuleMetadata['imports']>[number]> = {
  fromConfig: () =>
    WebSocketManagerModule.forRootAsync({
      inject: [ConfigService],
      useFactory: (config: ConfigService) => ({
        authenticate: byQuery,
        limits: { managersPerUser: Number(config.getOrThrow('SESSIONS_PER_USER')) },
      }),
      health: HAS.includes('terminus'),
    }),
  plain: () =>
    WebSocketManagerModule.forRoot({ authenticate: byQuery, limits, health: HAS.includes('terminus') }),
};

@Module({
  imports: [
    ...where('config', [
      ConfigModule.forRoot({
        isGlobal: true,
        ignoreEnvFile: true,
        load: [() => ({ SESSIONS_PER_USER: '2' })],
      }),
    ]),
    ...where('schedule', [ScheduleModule.forRoot()]),
    ...where('terminus', [TerminusModule]),
    (HAS.includes('config') ? ways.fromConfig : ways.plain)(),
  ],
  controllers: [
    ...where('schedule', [ScheduleController]),
    ...where('terminus', [HealthController]),
    ...where('prom-client', [MetricsController]),
  ],
  providers: [EchoGateway, ...where('schedule', [Jobs])],
})
class AppModule {}

if (HAS.includes('prom-client')) {
  prometheus.collectDefaultMetrics();
  new prometheus.Counter({ name: 'orders_total', help: 'A metric of the application' }).inc(3);
}

void NestFactory.create(AppModule).then(start);
