import { deflateRawSync } from 'node:zlib';
import { type CanActivate, type ExecutionContext, ForbiddenException, Injectable } from '@nestjs/common';
import { APP_GUARD } from '@nestjs/core';
import { WebSocketGateway } from '@nestjs/websockets';
import request from 'supertest';
import { afterEach, describe, expect, it } from 'vitest';
import { EchoGateway, startApp } from '../support/app.js';
import { connect } from '../support/client.js';
import { clientFrame } from '../support/raw-peer.js';
import { handshake, RawSocket } from '../support/raw-socket.js';
import { ADMIN_TOKEN, type Server, startServer } from '../support/server.js';
import { until } from '../support/stranger.js';

let server: Server | undefined;
async function start(env: NodeJS.ProcessEnv = {}): Promise<Server> {
  server = await startServer(env);
  return server;
}
afterEach(async () => {
  await server?.stop();
  server = undefined;
});

describe('a page of another site', () => {
  const HOST = 'chat.example';
  const FOREIGN: Record<string, string> = {
    'another site': 'https://evil.example',
    'no site at all': 'null',
    'the host as user information': `https://${HOST}@evil.example`,
    'the host as a user and password': `https://${HOST}:443@evil.example`,
    'the host as a subdomain': `https://${HOST}.evil.example`,
    'the host at the end of another': `https://not${HOST}`,
    'the host as a path': `https://evil.example/${HOST}`,
    'the host as a fragment': `https://evil.example#${HOST}`,
    'the host behind a backslash': `https://evil.example\\${HOST}`,
    'the host with a trailing dot': `https://${HOST}.`,
    'another port': `https://${HOST}:8443`,
    'a name that only looks alike': 'https://сhat.example',
    'its punycode': 'https://xn--hat-7ed.example',
    'a very long name': `https://${'a'.repeat(10_000)}.example`,
    'a list': `https://${HOST}, https://evil.example`,
    'a file': 'file://',
    'bytes that are no name': 'https://\u00ff\u00fe',
    nothing: '',
  };

  const statusFor = async (port: number, headers: Record<string, string | undefined>) => {
    const socket = await RawSocket.open(port);
    socket.write(Buffer.from(handshake('/ws?userId=alice', headers), 'latin1'));
    return socket.answer();
  };

  it('reaches nobody, however it writes where it comes from', async () => {
    const { port, service } = await startApp();
    for (const [what, Origin] of Object.entries(FOREIGN)) {
      const { status, body } = await statusFor(port, { Host: HOST, Origin });
      expect([what, status]).toEqual([what, 403]);
      expect(JSON.parse(body)).toMatchObject({ reason: 'forbidden_origin' });
    }
    expect(service.managersOf('alice')).toEqual([]);
    const own = [`https://${HOST}`, `HTTPS://${HOST.toUpperCase()}`, `http://${HOST}:80`];
    for (const Origin of own) expect((await statusFor(port, { Host: HOST, Origin })).status).toBe(101);
  });

  it('reaches nobody either where the request does not say which host it means', async () => {
    const { port, service } = await startApp();
    for (const Host of [undefined, '']) {
      for (const Origin of ['null', 'file://', '', 'nonsense', 'https://evil.example']) {
        const { status } = await statusFor(port, { Host, Origin });
        expect([Host, Origin, status >= 400]).toEqual([Host, Origin, true]);
      }
    }
    expect(service.managersOf('alice')).toEqual([]);
  });
});

describe('what a client sends and is told again', () => {
  it('adds no header and no line to an answer', async () => {
    const { url } = await start();
    const port = Number(new URL(url).port);
    const INJECTED = 'X-Injected: yes';
    const encoded = encodeURIComponent(`a\r\n${INJECTED}\r\n\r\n`);
    const requests: string[] = [
      handshake(`/ws?userId=${encoded}`),
      handshake(`/ws?userId=alice&sessionKey=${encoded}`),
      handshake(`/${encoded}?userId=alice`),
      handshake('/ws?userId=alice', { 'Sec-WebSocket-Protocol': `chat\r\n ${INJECTED}` }),
      handshake('/ws?userId=alice', { 'Sec-WebSocket-Protocol': `chat\n${INJECTED}` }),
      handshake('/ws?userId=alice', { 'Sec-WebSocket-Protocol': `chat\r${INJECTED}` }),
      handshake('/ws?userId=alice', { 'Sec-WebSocket-Protocol': encoded }),
      handshake('/ws?userId=alice', {
        'Sec-WebSocket-Extensions': `permessage-deflate; x="\r\n${INJECTED}"`,
      }),
      handshake('/ws?userId=alice', { Origin: `https://a\u0085${INJECTED}` }),
      handshake(`/websocket-managers/${encoded}`, { Upgrade: undefined, Connection: 'close' }),
    ];
    for (const text of requests) {
      const socket = await RawSocket.open(port);
      socket.write(Buffer.from(text, 'latin1'));
      const { head } = await socket.answer();
      expect(head.split(/[\r\n\u0085]+/).filter((line) => /^x-injected/i.test(line))).toEqual([]);
    }
  });

  it('comes back as JSON and as nothing else', async () => {
    const { url } = await start();
    const html = '<script>alert(1)</script>';
    const answers = await Promise.all([
      request(url).get(`/websocket-managers/api/users/${encodeURIComponent(html)}`),
      request(url)
        .get(`/websocket-managers/api/users/${encodeURIComponent(html)}`)
        .set('Authorization', `Bearer ${ADMIN_TOKEN}`),
      request(url)
        .post('/websocket-managers/api/users/alice/cleanup')
        .set('Authorization', `Bearer ${ADMIN_TOKEN}`)
        .send({ level: html }),
      request(url)
        .get(`/websocket-managers/api/users?minPressure=${encodeURIComponent(html)}`)
        .set('Authorization', `Bearer ${ADMIN_TOKEN}`),
    ]);
    for (const { headers } of answers) expect(headers['content-type']).toMatch(/^application\/json/);
  });
});

@WebSocketGateway({ path: '/deflate', perMessageDeflate: true })
class DeflateGateway extends EchoGateway {}

describe('a compressed message that is a bomb', () => {
  /** Sent as it is: a hundred megabytes in a hundred kilobytes. */
  const deflated = deflateRawSync(Buffer.alloc(100_000_000, 0x20));
  function bomb(isFinal = true): Buffer {
    const frame = clientFrame(0x1, deflated);
    frame[0] = (isFinal ? 0x80 : 0) | 0x40 | 0x1;
    return frame;
  }

  it('closes its own connection, and takes neither memory nor time of others', async () => {
    const running = await startApp({ gateways: [DeflateGateway] });
    const other = await connect(`${running.url}/deflate?userId=bob`);
    const before = process.memoryUsage().rss;
    const slowest: number[] = [];
    for (let i = 0; i < 20; i++) {
      const socket = await RawSocket.open(running.port);
      const extension = { 'Sec-WebSocket-Extensions': 'permessage-deflate' };
      socket.write(handshake(`/deflate?userId=mallory-${i}`, extension));
      expect((await socket.answer()).head).toMatch(/permessage-deflate/);
      socket.write(bomb());
      // Parts of a message count together.
      if (i % 2) socket.write(bomb(false));
      const startedAt = performance.now();
      expect(await other.echo(i)).toBe(i);
      slowest.push(performance.now() - startedAt);
      expect(await socket.frame()).toBe(1009);
    }
    const grownBy = process.memoryUsage().rss - before;
    console.log(
      `20 bombs of 100 MB: memory grew by ${Math.round(grownBy / 2 ** 20)} MiB, slowest echo of another ${Math.max(...slowest).toFixed(1)} ms`,
    );
    expect(grownBy).toBeLessThan(150 * 2 ** 20);
    expect(Math.max(...slowest)).toBeLessThan(500);
    await until(() => running.service.managersOf('mallory-0').length === 0, 3_000, 'them to be gone');
  });
});

@Injectable()
class OperatorsOnly implements CanActivate {
  canActivate(context: ExecutionContext): boolean {
    if (context.getType() !== 'http') return true;
    return (
      context.switchToHttp().getRequest<{ headers: Record<string, string> }>().headers['x-role'] ===
      'operator'
    );
  }
}

@Injectable()
class TeapotGuard implements CanActivate {
  canActivate(context: ExecutionContext): boolean {
    const { headers } = context.switchToHttp().getRequest<{ headers: Record<string, string> }>();
    if (headers['x-second'] !== 'yes') throw new ForbiddenException('second guard');
    return true;
  }
}

describe("the operator's routes of an application with a global prefix and a global guard", () => {
  it('are under the prefix, and behind both guards', async () => {
    const { app, url, service } = await startApp({
      extras: { admin: { guards: [TeapotGuard] }, health: true },
      providers: [{ provide: APP_GUARD, useClass: OperatorsOnly }],
      configure: (nest) => nest.setGlobalPrefix('internal/v1'),
    });
    const client = await connect(`${url}/ws?userId=alice`);
    const [manager] = service.managersOf('alice');
    const base = '/internal/v1/websocket-managers/api';
    const routes: ['get' | 'post' | 'delete', string][] = [
      ['get', `${base}/overview`],
      ['get', `${base}/users`],
      ['get', `${base}/users/alice`],
      ['get', `${base}/evictions`],
      ['get', `${base}/events`],
      ['post', `${base}/users/alice/cleanup`],
      ['post', `${base}/users/alice/disconnect`],
      ['delete', `${base}/managers/${manager?.id}`],
    ];
    const http = request(app.getHttpServer());
    for (const [method, path] of routes) {
      for (const headers of [{}, { 'x-role': 'operator' }, { 'x-second': 'yes' }]) {
        expect([path, (await http[method](path).set(headers)).status]).toEqual([path, 403]);
      }
      const unprefixed = path.replace('/internal/v1', '');
      const both = { 'x-role': 'operator', 'x-second': 'yes' };
      expect([unprefixed, (await http[method](unprefixed).set(both)).status]).toEqual([unprefixed, 404]);
    }
    expect(client.isOpen).toBe(true);
    const both = { 'x-role': 'operator', 'x-second': 'yes' };
    await http.get(`${base}/users/alice`).set(both).expect(200);
    await http.delete(`${base}/managers/${manager?.id}`).set(both).expect(200);
    expect((await client.closed()).code).toBe(4520);
    // The guard of the HTTP routes does not stand in the way of the gateway.
    await connect(`${url}/ws?userId=alice`);
  });
});
