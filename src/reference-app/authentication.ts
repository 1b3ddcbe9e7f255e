import type { IncomingMessage } from 'node:http';
import { errors, jwtVerify } from 'jose';
import type { UserContext } from '../options/user-context.js';
import type { Authenticate } from '../options/websocket-manager-options.interface.js';
import type { Environment } from './environment.js';

/** The `authenticate` that the environment asks for. */
export function authenticateBy(method: Environment['WSM_AUTH'], secret = ''): Authenticate {
  return method === 'jwt' ? byJwt(new TextEncoder().encode(secret)) : byDemo;
}

/** Believes `?userId=`: for a look at the module on one's own machine, and for nothing else. */
function byDemo(request: IncomingMessage): UserContext | null {
  const query = queryOf(request);
  const userId = query.get('userId');
  return userId === null ? null : { userId, sessionKey: query.get('sessionKey') ?? undefined };
}

/** Verifies an HS256 bearer token; `sub` is the user, and with `exp` the connection ends. */
function byJwt(secret: Uint8Array): Authenticate {
  return async (request) => {
    const token = tokenOf(request);
    if (token === undefined) return null;
    try {
      const { payload } = await jwtVerify(token, secret, { algorithms: ['HS256'] });
      if (payload.sub === undefined) return null;
      return {
        userId: payload.sub,
        sessionKey: queryOf(request).get('sessionKey') ?? undefined,
        ...(payload.exp === undefined ? {} : { expiresAt: payload.exp * 1_000 }),
      };
    } catch (error) {
      if (error instanceof errors.JOSEError) return null;
      throw error;
    }
  };
}

/** From the `Authorization` header, the `access_token` query, or a subprotocol, which is all that a browser can set. */
function tokenOf(request: IncomingMessage): string | undefined {
  const { authorization = '', 'sec-websocket-protocol': protocols = '' } = request.headers;
  const [, bearer] = /^Bearer +(\S+)$/i.exec(authorization) ?? [];
  if (bearer !== undefined) return bearer;
  const fromQuery = queryOf(request).get('access_token');
  if (fromQuery !== null) return fromQuery;
  return protocols
    .split(',')
    .map((protocol) => protocol.trim())
    .find((protocol) => COMPACT_JWS.test(protocol));
}

const COMPACT_JWS = /^[\w-]+\.[\w-]+\.[\w-]+$/;

function queryOf({ url = '' }: IncomingMessage): URLSearchParams {
  const start = url.indexOf('?');
  return new URLSearchParams(start < 0 ? '' : url.slice(start));
}
