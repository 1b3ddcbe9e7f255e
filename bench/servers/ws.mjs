import { createRequire } from 'node:module';

// The very copy of ws that Nest's adapter uses: two versions of ws are not what is compared here.
export const { WebSocketServer } = createRequire(import.meta.resolve('@nestjs/platform-ws'))('ws');

/** The protocol of a Nest gateway, as somebody without Nest would write it. */
export function answerEcho(socket, data) {
  const message = JSON.parse(data.toString());
  if (message.event === 'echo') socket.send(JSON.stringify({ event: 'echo', data: message.data }));
}
