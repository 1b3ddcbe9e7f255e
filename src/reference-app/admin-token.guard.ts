import { createHash, timingSafeEqual } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import {
  type CanActivate,
  type ExecutionContext,
  Inject,
  Injectable,
  UnauthorizedException,
} from '@nestjs/common';

/** The token that the operator's API asks for. */
export const ADMIN_TOKEN = Symbol('admin token');

/** Takes `Authorization: Bearer <token>`; everything else is 401. */
@Injectable()
export class AdminTokenGuard implements CanActivate {
  private readonly expected: Buffer;

  constructor(@Inject(ADMIN_TOKEN) token: string) {
    this.expected = digest(token);
  }

  canActivate(context: ExecutionContext): boolean {
    const { authorization = '' } = context.switchToHttp().getRequest<IncomingMessage>().headers;
    const [, token = ''] = /^Bearer +(\S+)$/i.exec(authorization) ?? [];
    // Digests are of equal length, and the comparison takes equally long for each.
    if (timingSafeEqual(digest(token), this.expected)) return true;
    throw new UnauthorizedException();
  }
}

function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
