import { setTimeout as sleep } from 'node:timers/promises';
import { WebSocketGateway } from '@nestjs/websockets';
import { describe, expect, it } from 'vitest';
import { EchoGateway, startApp } from '../support/app.js';
import { connect, refusal } from '../support/client.js';
import { handshake, RawSocket } from '../support/raw-socket.js';

const LIMIT = 3;
const GRACE_MS = 100;

/** A user at the limit, all of whose sessions are alive and out of their grace. */
async function startFull(gateway: Record<string, unknown>) {
  @WebSocketGateway({ path: '/ws', ...gateway } as never)
  class Gateway extends EchoGateway {}
  const running = await startApp({
    gateways: [Gateway],
    options: { limits: { managersPerUser: LIMIT }, cleanup: { graceMs: GRACE_MS } },
  });
  const living = await Promise.all(
    Array.from({ length: LIMIT }, () => connect(`${running.url}/ws?userId=alice`)),
  );
  await sleep(2 * GRACE_MS);
  return { ...running, living };
}

describe('a handshake that cannot succeed, of a user at the limit', () => {
  it('costs nobody a place where its offer of compression is none', async () => {
    const { port, living } = await startFull({ perMessageDeflate: true });
    for (const offer of ['permessage-deflate; client_max_window_bits=99', 'permessage-deflate; x=;', ';']) {
      const socket = await RawSocket.open(port);
      socket.write(handshake('/ws?userId=alice', { 'Sec-WebSocket-Extensions': offer }));
      expect((await socket.answer()).status).toBe(400);
    }
    await sleep(100);
    expect(living.map(({ isOpen }) => isOpen)).toEqual(Array(LIMIT).fill(true));
  });

  it("costs nobody a place where the gateway's own check refuses it", async () => {
    let isOpen = true;
    const { url, living } = await startFull({ verifyClient: () => isOpen });
    isOpen = false;
    expect((await refusal(`${url}/ws?userId=alice`)).status).toBe(401);
    await sleep(100);
    expect(living.map((client) => client.isOpen)).toEqual(Array(LIMIT).fill(true));
  });
});
