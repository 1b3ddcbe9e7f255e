import { setTimeout as sleep } from 'node:timers/promises';
import { MessageBody, SubscribeMessage, WebSocketGateway } from '@nestjs/websockets';
import { describe, expect, it, vi } from 'vitest';
import { byQuery, startApp } from '../support/app.js';
import { connect, refusal } from '../support/client.js';
import { handshake, messageFrame, RawSocket } from '../support/raw-socket.js';

const TARGET = '/ws?userId=alice';

/** An application that counts how often its own code was asked. */
async function startCounting() {
  const asked = vi.fn();
  @WebSocketGateway({ path: '/ws' })
  class Gateway {
    handleConnection(): void {
      asked('handleConnection');
    }
    handleDisconnect(): void {
      asked('handleDisconnect');
    }
  }
  const running = await startApp({
    gateways: [Gateway],
    options: {
      authenticate: (request) => {
        asked('authenticate');
        return byQuery(request);
      },
    },
  });
  return { ...running, asked };
}

describe('an upgrade that is no handshake is answered in HTTP, takes no slot and asks no hook', () => {
  it.each([
    ['wrong method', handshake(TARGET, {}, 'POST'), 405],
    ['missing key', handshake(TARGET, { 'Sec-WebSocket-Key': undefined }), 400],
    ['key that is no key', handshake(TARGET, { 'Sec-WebSocket-Key': 'aGVsbG8=' }), 400],
    ['two keys', handshake(TARGET, { 'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==' }), 400],
    ['missing version', handshake(TARGET, { 'Sec-WebSocket-Version': undefined }), 400],
    ['unknown version', handshake(TARGET, { 'Sec-WebSocket-Version': '99' }), 400],
    ['another protocol', handshake(TARGET, { Upgrade: 'h2c' }), 400],
    ['oversized headers', handshake(TARGET, { 'X-Large': 'x'.repeat(64 * 1024) }), 431],
    ['garbage', `\u0016\u0003\u0001 what is this\r\n\r\n`, 400],
    ['a path that is none', handshake('*'), 404],
    ['a path that is no URL', handshake('//[:/ws'), 404],
    ['a path with broken escapes', handshake('/%E0%A4%A/ws'), 404],
    ['a path that nobody owns', handshake('/elsewhere?userId=alice'), 404],
  ])('%s', async (_title, request, status) => {
    const { port, url, asked, events, service } = await startCounting();
    const raw = await RawSocket.open(port);
    raw.write(request);
    expect((await raw.answer()).status).toBe(status);
    await raw.end();
    expect(asked).not.toHaveBeenCalled();
    expect(events).toEqual([]);
    await connect(`${url}${TARGET}`);
    expect(service.managersOf('alice')).toHaveLength(1);
  });

  it('nor does a request that is never completed', async () => {
    const { port, url, asked, service } = await startCounting();
    const raw = await RawSocket.open(port);
    raw.write(handshake(TARGET).slice(0, 40));
    await connect(`${url}/ws?userId=bob`);
    raw.socket.resetAndDestroy();
    await sleep(50);
    expect(asked.mock.calls).toEqual([['authenticate'], ['handleConnection']]);
    expect(service.managersOf('alice')).toEqual([]);
  });
});

describe('an upgrade', () => {
  it('with a Host header that is no host gets 400, with and without an Origin', async () => {
    const { port, service } = await startApp();
    const raw = await RawSocket.open(port);
    raw.write(handshake(TARGET, { Host: 'a b[', Origin: 'http://a b[' }));
    expect((await raw.answer()).status).toBe(400);
    const plain = await RawSocket.open(port);
    plain.write(handshake(TARGET, { Host: 'a b[' }), messageFrame('echo', 'in'));
    expect((await plain.answer()).status).toBe(400);
    expect(service.managersOf('alice')).toHaveLength(0);
  });

  it('with the target in absolute form, as through a proxy, finds its gateway', async () => {
    const { port } = await startApp();
    const raw = await RawSocket.open(port);
    raw.write(handshake(`http://chat.example${TARGET}`, { Host: 'chat.example' }));
    expect((await raw.answer()).status).toBe(101);
  });

  it('that nobody owns is answered like every refusal, with a body', async () => {
    const { url } = await startApp();
    const { status, body } = await refusal(`${url}/nowhere`);
    expect([status, body]).toEqual([
      404,
      { statusCode: 404, error: 'Not Found', reason: 'not_found', message: expect.any(String) },
    ]);
  });
});

describe('messages that come with the handshake, and while admission is going on', () => {
  it('arrive once and in order, after the connection hook', async () => {
    const seen: unknown[] = [];
    @WebSocketGateway({ path: '/ws' })
    class Gateway {
      async handleConnection(): Promise<void> {
        await sleep(150);
        seen.push('connected');
      }
      @SubscribeMessage('echo')
      echo(@MessageBody() data: unknown): unknown {
        seen.push(data);
        return { event: 'echo', data };
      }
    }
    const { port } = await startApp({
      gateways: [Gateway],
      options: { authenticate: async (request) => sleep(150).then(() => byQuery(request)) },
    });
    const raw = await RawSocket.open(port);
    // The third message is cut in two; the rest of it comes during authentication, others during the hook.
    const cut = messageFrame('echo', 2);
    raw.write(handshake(TARGET), messageFrame('echo', 0), messageFrame('echo', 1), cut.subarray(0, 5));
    await sleep(50);
    raw.write(cut.subarray(5), messageFrame('echo', 3));
    expect((await raw.answer()).status).toBe(101);
    raw.write(messageFrame('echo', 4));
    await sleep(30);
    expect(seen).toEqual([]);
    raw.write(messageFrame('echo', 5));
    const answers: unknown[] = [];
    for (let i = 0; i < 6; i++) answers.push(JSON.parse(String(await raw.frame())).data);
    expect(answers).toEqual([0, 1, 2, 3, 4, 5]);
    expect(seen).toEqual(['connected', 0, 1, 2, 3, 4, 5]);
  });
});
