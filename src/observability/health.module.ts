import { Module } from '@nestjs/common';
import { TerminusModule } from '@nestjs/terminus';
import { WebSocketHealthController } from './health.controller.js';

/** Loaded only where the health routes are switched on: it needs @nestjs/terminus. */
@Module({ imports: [TerminusModule], controllers: [WebSocketHealthController] })
export class WebSocketHealthModule {}
