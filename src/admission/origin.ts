import type { IncomingMessage } from 'node:http';
import { synchronous } from '../options/synchronous.js';
import type { AllowedOrigins } from '../options/websocket-manager-options.interface.js';

/**
 * Whether a request may come from where it says it does. A request without an `Origin` does not come from a
 * browser, and no page can leave it out; so this is what stops cross-site WebSocket hijacking.
 */
export function isOriginAllowed(request: IncomingMessage, allowed: AllowedOrigins): boolean {
  const { origin, host } = request.headers;
  if (origin === undefined || allowed === '*') return true;
  if (typeof allowed === 'function')
    return synchronous(allowed(origin, request), 'admission.allowedOrigins') === true;
  // Without a Host there is nothing that could be the same.
  if (allowed === 'same-host') return Boolean(host) && hostOf(origin) === host?.toLowerCase();
  return allowed.some((entry) =>
    typeof entry === 'string' ? entry.toLowerCase() === origin.toLowerCase() : matches(entry, origin),
  );
}

/** `host[:port]` of an origin, the port left out where it is the scheme's own, as browsers send `Host`. */
function hostOf(origin: string): string | undefined {
  return URL.canParse(origin) ? new URL(origin).host : undefined;
}

/** A RegExp with the `g` or `y` flag remembers where it was; every request is a new one. */
function matches(pattern: RegExp, origin: string): boolean {
  pattern.lastIndex = 0;
  return pattern.test(origin);
}
