import { Injectable, Module } from '@nestjs/common';
import type { UserContext } from 'nestjs-websocket-manager';

/** Stands in for the tokens or sessions that an application has already. */
@Injectable()
export class Accounts {
  private readonly userIds = new Map([
    ['token-of-alice', 'alice'],
    ['token-of-bob', 'bob'],
  ]);

  /** Whose token it is; `null` refuses the connection. */
  holderOf(authorization = ''): UserContext | null {
    const userId = this.userIds.get(authorization.replace(/^Bearer /, ''));
    return userId === undefined ? null : { userId };
  }
}

@Module({ providers: [Accounts], exports: [Accounts] })
export class AccountsModule {}
