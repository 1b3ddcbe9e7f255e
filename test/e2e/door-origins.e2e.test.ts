import { describe, expect, it } from 'vitest';
import type { AllowedOrigins } from '../../src/index.js';
import { byQuery, startApp } from '../support/app.js';
import { attempt, Client, connect, refusal } from '../support/client.js';

async function statusOf(url: string, origin: string | undefined, host?: string): Promise<number> {
  const headers = { ...(origin === undefined ? {} : { origin }), ...(host === undefined ? {} : { host }) };
  const outcome = await attempt(`${url}/ws?userId=alice`, { headers });
  return outcome instanceof Client ? 101 : outcome.status;
}

const startWith = (allowedOrigins?: AllowedOrigins) =>
  startApp({ options: { admission: { rejectWith: 'http', ...(allowedOrigins && { allowedOrigins }) } } });

describe('origins', () => {
  it('are the same host by default', async () => {
    const { url, port } = await startWith();
    const statuses = {
      none: await statusOf(url, undefined),
      same: await statusOf(url, `http://127.0.0.1:${port}`),
      secure: await statusOf(url, `https://127.0.0.1:${port}`),
      otherPort: await statusOf(url, `http://127.0.0.1:${port + 1}`),
      otherHost: await statusOf(url, 'https://elsewhere.example'),
      prefix: await statusOf(url, `http://127.0.0.1:${port}.elsewhere.example`),
      opaque: await statusOf(url, 'null'),
      noUrl: await statusOf(url, 'certainly not'),
      empty: await statusOf(url, ''),
    };
    expect(statuses).toEqual({
      none: 101,
      same: 101,
      secure: 101,
      otherPort: 403,
      otherHost: 403,
      prefix: 403,
      opaque: 403,
      noUrl: 403,
      empty: 403,
    });
  });

  it('of the same host are so whatever their case, and with the port of the scheme left out', async () => {
    const { url } = await startWith();
    expect(await statusOf(url, 'https://Chat.Example', 'chat.EXAMPLE')).toBe(101);
    expect(await statusOf(url, 'https://chat.example:443', 'chat.example')).toBe(101);
    expect(await statusOf(url, 'https://chat.example:8443', 'chat.example')).toBe(403);
  });

  it('may be a list of names and expressions, where the g flag changes nothing', async () => {
    const { url } = await startWith(['https://Chat.example', /^https:\/\/[a-z]+\.trusted\.example$/g]);
    expect(await statusOf(url, 'https://chat.example')).toBe(101);
    for (let i = 0; i < 4; i++) expect(await statusOf(url, 'https://www.trusted.example')).toBe(101);
    expect(await statusOf(url, 'https://chat.example.evil')).toBe(403);
    expect(await statusOf(url, new URL(url).origin)).toBe(403);
    expect(await statusOf(url, undefined)).toBe(101);
  });

  it('may be everybody', async () => {
    const { url } = await startWith('*');
    expect(await statusOf(url, 'https://elsewhere.example')).toBe(101);
  });

  it('may be decided by a function, of which only true is a yes', async () => {
    const { url } = await startWith((origin, request) => {
      if (origin === 'https://odd.example') return 'yes' as never;
      return origin === 'https://chat.example' && request.url?.startsWith('/ws') === true;
    });
    expect(await statusOf(url, 'https://chat.example')).toBe(101);
    expect(await statusOf(url, 'https://elsewhere.example')).toBe(403);
    expect(await statusOf(url, 'https://odd.example')).toBe(403);
  });

  it('are refused with 500 by a function that throws, and who carries none is not asked about it', async () => {
    const { url, of, service } = await startWith(() => {
      throw new Error('list not loaded');
    });
    const answer = await refusal(`${url}/ws?userId=alice`, { origin: 'https://chat.example' });
    expect(answer.status).toBe(500);
    expect(of('hook_failed').map(({ hook }) => hook)).toEqual(['admission.allowedOrigins']);
    expect(service.managersOf('alice')).toEqual([]);
    await connect(`${url}/ws?userId=alice`);
  });

  it('are looked at before anybody is asked who it is', async () => {
    let asked = 0;
    const { url } = await startApp({
      options: {
        authenticate: (request) => {
          asked++;
          return byQuery(request);
        },
      },
    });
    expect(await statusOf(url, 'https://elsewhere.example')).toBe(403);
    expect(asked).toBe(0);
  });
});
