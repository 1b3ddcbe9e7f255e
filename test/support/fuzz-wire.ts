import { clientFrame } from './raw-peer.js';
import { handshake } from './raw-socket.js';
import { SeededRandom } from './seeded-random.js';

/** An upgrade request as it goes over the wire: nearly right, or mutated. */
export function fuzzedUpgrade(random: SeededRandom): Buffer {
  const user = random.chance(0.7)
    ? `fuzz-${random.below(50)}`
    : encodeURIComponent(wellFormed(random.text(40)));
  const key = random.chance(0.3) ? `&sessionKey=${encodeURIComponent(wellFormed(random.text()))}` : '';
  const target = random.pick([
    () => `/ws?userId=${user}${key}`,
    () => `/ws?userId=${user}${key}`,
    () => `/ws?${random.text(20)}`,
    () => `http://elsewhere.example/ws?userId=${user}`,
    () => `//ws?userId=${user}`,
    () => random.text(20),
    () => `/${random.text(8)}?userId=${user}`,
    () => `/ws?userId=${'%'.repeat(random.below(300))}&userId=${user}`,
  ])();
  const odd: Record<string, () => string | undefined> = {
    Host: () => random.pick([undefined, '', 'a b', '[::1', 'x'.repeat(300), random.text()]),
    Origin: () => random.pick(['null', '', 'http://localhost', 'https://elsewhere.example', random.text(30)]),
    Upgrade: () => random.pick(['WebSocket', 'h2c', 'websocket, h2c', '', random.text()]),
    Connection: () => random.pick(['keep-alive', 'upgrade, close', '', random.text()]),
    'Sec-WebSocket-Version': () => random.pick(['8', '7', '13, 8', '', random.text()]),
    'Sec-WebSocket-Key': () => random.pick(['', 'short', '='.repeat(24), random.text(30)]),
    'Sec-WebSocket-Protocol': () => random.pick(['a, a', ',', 'a.b.c', '"', random.text(30)]),
    'Sec-WebSocket-Extensions': () =>
      random.pick(['permessage-deflate; client_max_window_bits=99', 'x;=;', random.text(30)]),
    'Content-Length': () => random.pick(['0', '5', '-1', '9'.repeat(30), random.text()]),
    'Transfer-Encoding': () => random.pick(['chunked', 'chunked, chunked', random.text()]),
    Authorization: () => `Bearer ${random.text(40)}`,
    [`X-${random.below(100)}`]: () => random.text(random.chance(0.05) ? 3_000 : 50),
  };
  const headers: Record<string, string | undefined> = {};
  for (const [name, value] of Object.entries(odd)) if (random.chance(0.05)) headers[name] = value();
  const method = random.chance(0.95)
    ? 'GET'
    : random.pick(['POST', 'CONNECT', 'OPTIONS', 'get', random.text()]);
  const request = Buffer.from(handshake(target, headers, method));
  return random.chance(0.3) ? random.mutate(request) : request;
}

/** encodeURIComponent refuses half of a pair. */
function wellFormed(text: string): string {
  return Buffer.from(text).toString();
}

/** A frame that a peer may send, though few do. */
export function oddFrame(random: SeededRandom): Buffer[] {
  return random.pick<() => Buffer[]>([
    () => [clientFrame(0x9, random.bytes(random.below(126)))],
    () => [clientFrame(0xa, random.bytes(random.below(126)))],
    () => [clientFrame(0x1, '')],
    () => [clientFrame(0x2, random.bytes(random.below(300)))],
    () => [clientFrame(0x1, fuzzedMessage(random))],
    () => [clientFrame(0x1, fuzzedMessage(random).padEnd(70_000, ' '))],
    () => {
      const [first, second] = [clientFrame(0x1, '{"event":"ec'), clientFrame(0x0, 'ho","data":1}')];
      first[0] = 0x01;
      // A control frame may come between the parts of a message.
      return [first, clientFrame(0x9, 'x'), second];
    },
  ])();
}

/** A frame that no peer may send. Nothing after it is read. */
export function hostileFrame(random: SeededRandom): Buffer {
  const text = clientFrame(0x1, fuzzedMessage(random));
  const withFirstByte = (byte: number, frame: Buffer) => {
    frame[0] = byte;
    return frame;
  };
  return random.pick<() => Buffer>([
    // Opcodes that mean nothing, reserved bits, no mask.
    () =>
      withFirstByte(
        0x80 | random.pick([0x3, 0x4, 0x5, 0x6, 0x7, 0xb, 0xc, 0xd, 0xe, 0xf]),
        clientFrame(1, 'x'),
      ),
    () => withFirstByte(0x81 | random.pick([0x40, 0x20, 0x10, 0x70]), text),
    () => Buffer.concat([Buffer.from([0x81, 5]), Buffer.from('hello')]),
    // Lengths that are wrong, huge, or not in their shortest form.
    () => Buffer.concat([Buffer.from([0x81, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), text]),
    () => Buffer.concat([Buffer.from([0x82, 0xff, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff]), random.bytes(20)]),
    () => Buffer.concat([Buffer.from([0x81, 0xfe, 0, 1]), random.bytes(5)]),
    // Control frames that are too long or in parts.
    () => clientFrame(random.pick([0x8, 0x9, 0xa]), random.bytes(126 + random.below(300))),
    () => withFirstByte(random.pick([0x08, 0x09, 0x0a]), clientFrame(0x9, 'x')),
    // Parts without a beginning, a message within a message.
    () => clientFrame(0x0, 'tail'),
    () => Buffer.concat([withFirstByte(0x01, clientFrame(1, 'head')), text]),
    // Texts that are no UTF-8, close codes that may not be sent.
    () => clientFrame(0x1, Buffer.from([0xc3, 0x28, 0xff, 0xfe, 0xed, 0xa0, 0x80])),
    () => clientFrame(0x8, Buffer.from([random.below(256)])),
    () => {
      const code = Buffer.alloc(2);
      code.writeUInt16BE(random.pick([0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535, 1000, 4510]));
      return clientFrame(0x8, Buffer.concat([code, Buffer.from(random.text(20))]).subarray(0, 125));
    },
    () => random.mutate(text),
    () => random.bytes(1 + random.below(200)),
  ])();
}

/** A message of the chat, or what looks like one, or does not. */
export function fuzzedMessage(random: SeededRandom): string {
  const value = (): unknown =>
    random.pick<() => unknown>([
      () => random.text(30),
      () => random.below(1_000),
      () => null,
      () => [value(), value()],
      () => ({ [random.text()]: random.text() }),
      () => ({ prompt: random.pick<unknown>([random.text(6), 1, null, {}, '']) }),
      () => ({ toString: 1, toJSON: 'x', __proto__: null, valueOf: 'x' }),
      () => JSON.parse('['.repeat(50) + ']'.repeat(50)) as unknown,
    ])();
  const event = random.pick<unknown>([
    ...['echo', 'echo', 'echo', 'ask', 'session', 'ws:closing', 'exception', '__proto__', 'constructor'],
    ...['toString', '', null, 1, ['echo'], { echo: 1 }, random.text()],
  ]);
  const message = JSON.stringify(
    random.pick<() => unknown>([
      () => ({ event, data: value() }),
      () => ({ event, data: value() }),
      () => ({ event }),
      () => ({ data: value(), event, id: random.text(), extra: value() }),
      () => value(),
    ])(),
  );
  if (random.chance(0.7)) return message;
  return random.mutate(Buffer.from(message)).toString();
}

/** A request to one of the HTTP routes: nearly right, or mutated. */
export function fuzzedHttpRequest(random: SeededRandom, token: string): Buffer {
  const segment = () =>
    random.pick([
      () => encodeURIComponent(wellFormed(random.text())),
      () => `fuzz-${random.below(50)}`,
      () => random.text(10),
      () => 'x'.repeat(random.below(400)),
      () => '%E0%A4%A',
      () => '..%2f..',
    ])();
  const [method, path] = random.pick([
    () => ['GET', 'api/overview'],
    () => ['GET', `api/users?minPressure=${segment()}&limit=${segment()}&limit=${segment()}`],
    () => ['GET', `api/users?after=${segment()}&limit=1`],
    () => ['GET', `api/overview?${segment()}=${segment()}`],
    () => ['GET', `api/users?minPressure[]=${segment()}&limit[x]=${segment()}`],
    () => ['GET', `api/users/${segment()}`],
    () => ['POST', `api/users/${segment()}/cleanup`],
    () => ['POST', `api/users/${segment()}/cleanup`],
    () => ['POST', `api/users/${segment()}/disconnect`],
    () => ['DELETE', `api/managers/${segment()}`],
    () => ['GET', 'api/evictions'],
    () => ['GET', `api/${segment()}`],
    () => [random.text(6), `api/${segment()}`],
  ])() as [string, string];
  const body = random.pick([
    () => '',
    () =>
      JSON.stringify({ level: random.pick(['force', 'moderate', '', 1, null]), count: random.below(3) - 1 }),
    () => JSON.stringify({ level: random.text(), count: random.text(), dryRun: random.text() }),
    () => JSON.stringify([random.text()]),
    () => `{"__proto__":{"level":"force"},"level":${random.text()}}`,
    () => random.mutate(Buffer.from('{"level":"force","count":1,"dryRun":true}')).toString('latin1'),
    () => '['.repeat(5_000),
  ])();
  const type = random.pick([
    'application/json',
    'application/json; charset=x',
    'text/plain',
    'multipart/form-data',
  ]);
  const signature = random.chance(0.85) ? token : random.text(30);
  const head = [
    `${method} /websocket-managers/${path} HTTP/1.1`,
    'Host: localhost',
    'Connection: close',
    `Authorization: Bearer ${signature}`,
    `Content-Type: ${type}`,
    `Content-Length: ${random.chance(0.97) ? Buffer.byteLength(body) : random.below(100)}`,
  ];
  const request = Buffer.from(`${head.join('\r\n')}\r\n\r\n${body}`);
  return random.chance(0.25) ? random.mutate(request) : request;
}
