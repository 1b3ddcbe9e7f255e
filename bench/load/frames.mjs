// Bytes that are made once and sent many times.
import { randomBytes } from 'node:crypto';

/** Masked with zeros, which leaves the payload as it is; the server unmasks it like any other. */
const NO_MASK = Buffer.alloc(4);

/** A frame of a client. */
export function frame(opcode, payload) {
  const { length } = payload;
  const header =
    length < 126
      ? Buffer.from([0x80 | opcode, 0x80 | length])
      : Buffer.from([0x80 | opcode, 0x80 | 126, length >> 8, length & 0xff]);
  return Buffer.concat([header, NO_MASK, payload]);
}

export const textFrame = (text) => frame(1, Buffer.from(text));
export const PONG = frame(10, Buffer.alloc(0));
export const CLOSE = frame(8, Buffer.from([0x03, 0xe8]));

/** The upgrade request that a client in Node sends. */
export function handshake(path, port) {
  return Buffer.from(
    [
      `GET ${path} HTTP/1.1`,
      'Sec-WebSocket-Version: 13',
      `Sec-WebSocket-Key: ${randomBytes(16).toString('base64')}`,
      'Connection: Upgrade',
      'Upgrade: websocket',
      'Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits',
      `Host: 127.0.0.1:${port}`,
      '\r\n',
    ].join('\r\n'),
  );
}

/** How a client talks to a gateway, by the platform's protocol. */
export const DIALECTS = {
  ws: {
    path: (user) => `/ws?user=${user}`,
    message: (event, data) => textFrame(JSON.stringify({ event, data })),
    /** The 101 is all that a client waits for. */
    isPacketed: false,
  },
  'socket.io': {
    path: (user) => `/socket.io/?EIO=4&transport=websocket&user=${user}`,
    message: (event, data) => textFrame(`42${JSON.stringify([event, data])}`),
    isPacketed: true,
  },
};
export const PACKET_CONNECT = textFrame('40');
export const PACKET_PONG = textFrame('3');
