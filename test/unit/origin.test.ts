import type { IncomingMessage } from 'node:http';
import { describe, expect, it } from 'vitest';
import { isOriginAllowed } from '../../src/admission/origin.js';
import type { AllowedOrigins } from '../../src/options/websocket-manager-options.interface.js';

const from = (origin: string | undefined, host: string | undefined = 'chat.example') =>
  ({ headers: { origin, host } }) as IncomingMessage;

describe('isOriginAllowed', () => {
  it.each<[AllowedOrigins, string | undefined, string | undefined, boolean]>([
    ['same-host', undefined, undefined, true],
    ['*', 'https://anywhere.example', undefined, true],
    ['same-host', 'https://chat.example', 'chat.example', true],
    ['same-host', 'https://chat.example', 'CHAT.example', true],
    ['same-host', 'https://CHAT.example', 'chat.example', true],
    ['same-host', 'https://chat.example:443', 'chat.example', true],
    ['same-host', 'http://chat.example:8080', 'chat.example:8080', true],
    ['same-host', 'http://chat.example:8080', 'chat.example', false],
    ['same-host', 'https://evil.example', 'chat.example', false],
    ['same-host', 'https://evil.example', undefined, false],
    ['same-host', 'null', 'chat.example', false],
    ['same-host', 'null', '', false],
    ['same-host', '', '', false],
    ['same-host', 'file://', '', false],
    [['https://a.example', /^https:\/\/.*\.b\.example$/g], 'https://A.example', 'chat.example', true],
    [['https://A.example'], 'https://a.example', 'chat.example', true],
    [['https://a.example', /^https:\/\/.*\.b\.example$/g], 'https://x.b.example', 'chat.example', true],
    [['https://a.example'], 'https://a.example.evil', 'chat.example', false],
    [[], 'https://chat.example', 'chat.example', false],
    [() => true, 'https://anywhere.example', 'chat.example', true],
    [() => false, 'https://anywhere.example', 'chat.example', false],
    [() => 'yes' as never, 'https://anywhere.example', 'chat.example', false],
  ])('%s: %s at %s: %s', (allowed, origin, host, expected) => {
    const request = { headers: { origin, host } } as IncomingMessage;
    // Twice: an expression with the g flag remembers where it was.
    for (let i = 0; i < 2; i++) expect(isOriginAllowed(request, allowed)).toBe(expected);
  });

  it('tells a function of the origin and the request, and wants its answer at once', () => {
    const request = from('https://a.example');
    const seen: unknown[] = [];
    isOriginAllowed(request, (...args) => seen.push(...args) > 0);
    expect(seen).toEqual(['https://a.example', request]);
    expect(() => isOriginAllowed(request, (() => Promise.resolve(true)) as never)).toThrow(
      'admission.allowedOrigins returned a promise',
    );
  });
});
