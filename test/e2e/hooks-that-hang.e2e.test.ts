import { setTimeout as sleep } from 'node:timers/promises';
import { WebSocketGateway } from '@nestjs/websockets';
import { describe, expect, it, vi } from 'vitest';
import { startApp } from '../support/app.js';
import { connect } from '../support/client.js';

/** Never says that it is done. */
@WebSocketGateway({ path: '/ws' })
class ForgetfulGateway {
  handleDisconnect(): Promise<void> {
    return new Promise(() => {});
  }
}

describe('a disconnect hook that never settles', () => {
  it('is waited for by a shutdown, for as long as that may take', async () => {
    const { url, service, close } = await startApp({
      gateways: [ForgetfulGateway],
      options: { drain: { spreadMs: 0, timeoutMs: 800 } },
    });
    await (await connect(`${url}/ws?userId=alice`)).leave();
    await vi.waitFor(() => expect(service.managersOf('alice')).toEqual([]));
    const startedAt = performance.now();
    await close();
    expect(performance.now() - startedAt).toBeGreaterThan(500);
  });

  it('is forgotten after that time, with the connection that it was for', async () => {
    const { url, service, close } = await startApp({
      gateways: [ForgetfulGateway],
      options: { cleanup: { hookTimeoutMs: 100 }, drain: { spreadMs: 0, timeoutMs: 3_000 } },
    });
    await (await connect(`${url}/ws?userId=alice`)).leave();
    await vi.waitFor(() => expect(service.managersOf('alice')).toEqual([]));
    await sleep(3_300);
    const startedAt = performance.now();
    await close();
    expect(performance.now() - startedAt).toBeLessThan(1_500);
  });
});
