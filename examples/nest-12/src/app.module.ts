import { Module } from '@nestjs/common';
import { WebSocketManagerModule } from 'nestjs-websocket-manager';
import { Accounts, AccountsModule } from './accounts.js';
import { ChatGateway } from './chat.gateway.js';
import { Presence, PresenceController } from './presence.js';

@Module({
  imports: [
    WebSocketManagerModule.forRootAsync({
      imports: [AccountsModule],
      inject: [Accounts],
      useFactory: (accounts: Accounts) => ({
        authenticate: ({ headers }) => accounts.holderOf(headers.authorization),
        limits: { managersPerUser: 3 },
        cleanup: { idleTimeoutMs: 300_000 },
      }),
    }),
  ],
  controllers: [PresenceController],
  providers: [ChatGateway, Presence],
})
export class AppModule {}
