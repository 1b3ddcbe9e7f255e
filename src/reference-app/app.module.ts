import { randomBytes } from 'node:crypto';
import { Logger, Module } from '@nestjs/common';
import { ConfigModule, ConfigService } from '@nestjs/config';
import { ScheduleModule } from '@nestjs/schedule';
import { WebSocketManagerModule } from '../websocket-manager.module.js';
import { ADMIN_TOKEN, AdminTokenGuard } from './admin-token.guard.js';
import { authenticateBy } from './authentication.js';
import { ChatGateway } from './chat.gateway.js';
import { type Environment, validateEnvironment } from './environment.js';
import { LanguageModel } from './language-model.js';
import { MetricsController } from './metrics.controller.js';

/** Awaited here: what is wrong with the environment is then wrong with the import, and said in one line. */
const configuration = await ConfigModule.forRoot({
  isGlobal: true,
  cache: true,
  validate: validateEnvironment,
});

@Module({
  imports: [
    configuration,
    ScheduleModule.forRoot(),
    WebSocketManagerModule.forRootAsync({
      inject: [ConfigService],
      useFactory: (config: ConfigService<Environment, true>) => ({
        ...config.get('options', { infer: true }),
        authenticate: authenticateBy(config.get('WSM_AUTH'), config.get('WSM_JWT_SECRET')),
      }),
      health: true,
      admin: {
        guards: [AdminTokenGuard],
        providers: [{ provide: ADMIN_TOKEN, useFactory: adminToken, inject: [ConfigService] }],
      },
    }),
  ],
  controllers: [MetricsController],
  providers: [ChatGateway, LanguageModel],
})
export class AppModule {}

/** The token from the environment, or one that is made now and printed this once. */
function adminToken(config: ConfigService): string {
  const given = config.get<string>('WSM_ADMIN_TOKEN');
  if (given) return given;
  const token = randomBytes(24).toString('base64url');
  new Logger('Admin').log(`WSM_ADMIN_TOKEN is not set; for this run it is ${token}`);
  return token;
}
