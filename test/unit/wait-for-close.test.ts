import { once } from 'node:events';
import { type AddressInfo } from 'node:net';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import WebSocket, { WebSocketServer } from 'ws';
import { waitForClose } from '../../src/testing/index.js';

describe('waitForClose', () => {
  let server: WebSocketServer;
  let url: string;

  beforeEach(async () => {
    server = new WebSocketServer({ port: 0, host: '127.0.0.1' });
    await new Promise((resolve) => server.on('listening', resolve));
    url = `ws://127.0.0.1:${(server.address() as AddressInfo).port}`;
  });

  afterEach(() => {
    for (const client of server.clients) client.terminate();
    server.close();
  });

  it('resolves with the code and the reason', async () => {
    server.on('connection', (socket) => socket.close(4510, 'evicted'));
    expect(await waitForClose(new WebSocket(url))).toEqual({ code: 4510, reason: 'evicted' });
  });

  it('knows the event interface of a browser', async () => {
    const socket = Object.assign(new EventTarget(), { readyState: 1 });
    const closed = waitForClose(socket as never);
    socket.dispatchEvent(Object.assign(new Event('close'), { code: 1012, reason: 'draining' }));
    expect(await closed).toEqual({ code: 1012, reason: 'draining' });
  });

  it('says what it waited for in vain', async () => {
    const socket = new WebSocket(url);
    await once(socket, 'open');
    await expect(waitForClose(socket, 50)).rejects.toThrow('not closed within 50 ms (readyState 1)');
    expect(socket.listenerCount('close')).toBe(0);
  });

  it('is not ended by an error of the socket', async () => {
    server.on('connection', (socket) => socket.terminate());
    expect((await waitForClose(new WebSocket(url))).code).toBe(1006);
    const nowhere = new WebSocket('ws://127.0.0.1:1');
    expect((await waitForClose(nowhere)).code).toBe(1006);
  });

  it('refuses a socket that was closed before', async () => {
    const socket = new WebSocket(url);
    const closed = waitForClose(socket);
    socket.on('open', () => socket.terminate());
    await closed;
    await expect(waitForClose(socket)).rejects.toThrow('closed before');
  });
});
