import { Controller, Get, Header } from '@nestjs/common';
import prometheus from 'prom-client';

/** What Prometheus scrapes. */
@Controller('metrics')
export class MetricsController {
  @Get()
  @Header('Content-Type', prometheus.register.contentType)
  metrics(): Promise<string> {
    return prometheus.register.metrics();
  }
}
