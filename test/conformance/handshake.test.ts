import { describe, expect, it } from 'vitest';
import { expectSame, registerCase, testTable } from './support/expected-differences.js';
import { useSides } from './support/frame-case.js';
import { KEY, RawClient, request, turn } from './support/raw-client.js';
import type { ServerSocket, Side } from './support/sides.js';
import { frame, TEXT } from './support/wire.js';

const sides = useSides();

interface HandshakeCase {
  readonly rule: string;
  readonly title: string;
  /** Where `ID` stands in it, the id of the connection is put. */
  readonly request: string;
  /** The status that the platform answers with; 0: it ends the connection without an answer. */
  readonly status: number;
  /** Bytes that follow the request in the same segment. */
  readonly head?: Buffer;
}

let lastId = 0;

/** What one side answers, and what its application sees. */
async function transcript(
  side: Side,
  handshake: HandshakeCase,
  id: string,
  bytewise: boolean,
): Promise<string[]> {
  const lines: string[] = [];
  let socket: ServerSocket | undefined;
  side.expect(id, (arrived, { headers, method, url }) => {
    socket = arrived;
    const { extensions, protocol, readyState, binaryType, url: clientUrl } = arrived;
    lines.push(
      `application: ${method} ${url} ${JSON.stringify(headers)}`,
      `application: ${JSON.stringify({ extensions, protocol, readyState, binaryType, clientUrl })}`,
    );
    arrived.on('message', (data, isBinary) => lines.push(`application: message ${data} ${isBinary}`));
  });
  const client = await RawClient.open(side.port, false);
  try {
    const bytes = Buffer.concat([
      Buffer.from(handshake.request.replaceAll('ID', id), 'latin1'),
      handshake.head ?? Buffer.alloc(0),
    ]);
    if (bytewise) await client.segments(Array.from(bytes, (byte) => Buffer.from([byte])));
    else client.write(bytes);
    const head = await client.response();
    lines.push(`wire: ${head.replace(/^Date: .*$/m, 'Date: -')}`);
    if (head.startsWith('HTTP/1.1 101')) {
      await client.settle();
      lines.push(...client.newLines().map((line) => `wire: ${line}`));
      client.socket.end();
      await client.end();
      while (socket && socket.readyState !== 3) await turn();
    } else {
      lines.push(`wire: ${await client.body()}`, client.ended ? 'wire: end of the connection' : 'wire: open');
    }
    return lines;
  } finally {
    client.socket.destroy();
  }
}

function statusOf(lines: readonly string[]): number {
  const head = lines.find((line) => line.startsWith('wire: HTTP/1.1 '));
  return Number(head?.slice('wire: HTTP/1.1 '.length).slice(0, 3) ?? 0);
}

function testHandshakes(title: string, cases: readonly HandshakeCase[], bytewise = false): void {
  describe(title, () => {
    for (const one of cases) {
      registerCase(one.title);
      it(`${one.rule}: ${one.title}`, async () => {
        const id = `h${++lastId}`;
        const { platform, module } = sides();
        const theirs = await transcript(platform, one, id, bytewise);
        const ours = await transcript(module, one, id, bytewise);
        const about = `${one.rule}: ${one.title}\nsent: ${JSON.stringify(one.request)}`;
        expect(statusOf(theirs), `${about}\non the platform\n${theirs.join('\n')}`).toBe(one.status);
        expectSame(one.title, about, theirs, ours);
      });
    }
  });
}

const TARGET = '/plain?id=ID';
type Headers = Parameters<typeof request>[1];

function withHeaders(
  rule: string,
  title: string,
  status: number,
  headers: Headers,
  target = TARGET,
): HandshakeCase {
  return { rule, title, status, request: request(target, headers) };
}

const requests: HandshakeCase[] = [
  withHeaders('RFC 6455 4.2.2', 'a valid handshake', 101, {}),
  withHeaders('RFC 6455 4.2.1', 'Upgrade: WebSocket', 101, { Upgrade: 'WebSocket' }),
  withHeaders('RFC 6455 4.2.1', 'Upgrade: WEBSOCKET', 101, { Upgrade: 'WEBSOCKET' }),
  withHeaders('RFC 6455 4.2.1', 'Connection: upgrade', 101, { Connection: 'upgrade' }),
  withHeaders('RFC 6455 4.2.1', 'Connection: keep-alive, Upgrade', 101, {
    Connection: 'keep-alive, Upgrade',
  }),
  withHeaders('RFC 6455 4.2.1', 'no Upgrade header', 404, { Upgrade: undefined }),
  withHeaders('RFC 6455 4.2.1', 'no Connection header', 404, { Connection: undefined }),
  withHeaders('RFC 6455 4.2.1', 'Connection: keep-alive', 404, { Connection: 'keep-alive' }),
  ...['h2c', 'websocket2', 'websocket, h2c', 'web socket', 'TLS/1.0'].map((upgrade) =>
    withHeaders('RFC 6455 4.2.1', `Upgrade: ${upgrade}`, 400, { Upgrade: upgrade }),
  ),
  withHeaders('RFC 6455 4.4', 'no Sec-WebSocket-Version', 400, { 'Sec-WebSocket-Version': undefined }),
  ...['0', '1', '7', '9', '12', '14', '25', '', 'abc', '13, 8', '13,8', '-13', '13.5'].map((version) =>
    withHeaders('RFC 6455 4.4', `Sec-WebSocket-Version: ${version}`, 400, {
      'Sec-WebSocket-Version': version,
    }),
  ),
  ...['8', '13', '013', '13.0', '0xd'].map((version) =>
    withHeaders('RFC 6455 4.4', `Sec-WebSocket-Version: ${version}, which the platform takes`, 101, {
      'Sec-WebSocket-Version': version,
    }),
  ),
  withHeaders('RFC 6455 4.4', 'two Sec-WebSocket-Version headers', 400, {
    'Sec-WebSocket-Version': ['13', '13'],
  }),
  withHeaders('RFC 6455 4.2.1', 'no Sec-WebSocket-Key', 400, { 'Sec-WebSocket-Key': undefined }),
  ...[
    '',
    'x',
    'dGhlIHNhbXBsZSBub25jZQ=',
    'dGhlIHNhbXBsZSBub25jZQ',
    'dGhlIHNhbXBsZSBub25jZQ===',
    'dGhlIHNhbXBsZSBub25jZ-==',
    'dGhlIHNhbXBsZSBub25jZQAA',
    'dGhlIHNhbXBsZSBub25jZQ== x',
    'dGhlIHNhbXBsZSBub25jZQ==;',
  ].map((key) =>
    withHeaders('RFC 6455 4.2.1', `Sec-WebSocket-Key: ${JSON.stringify(key)}`, 400, {
      'Sec-WebSocket-Key': key,
    }),
  ),
  withHeaders('RFC 6455 4.2.1', 'two Sec-WebSocket-Key headers', 400, { 'Sec-WebSocket-Key': [KEY, KEY] }),
  withHeaders('RFC 6455 4.2.2', 'another key', 101, { 'Sec-WebSocket-Key': 'x3JJHMbDL1EzLkh9GBhXDw==' }),
  ...['POST', 'PUT', 'DELETE', 'HEAD', 'OPTIONS', 'PATCH', 'TRACE'].map((method) => ({
    rule: 'RFC 6455 4.2.1',
    title: `method ${method}`,
    status: 405,
    request: request(TARGET, {}, `${method} ${TARGET} HTTP/1.1`),
  })),
  {
    rule: 'RFC 9112 3',
    title: 'method get',
    status: 400,
    request: request(TARGET, {}, `get ${TARGET} HTTP/1.1`),
  },
  ...(
    [
      ['HTTP/1.0', 101],
      ['HTTP/1.2', 400],
      // Node reads these two as HTTP/1.1.
      ['HTTP/2.0', 101],
      ['HTTP/0.9', 101],
      ['WS/1.1', 400],
    ] as const
  ).map(([version, status]) => ({
    rule: 'RFC 6455 4.2.1',
    title: `version ${version}`,
    status,
    request: request(TARGET, {}, `GET ${TARGET} ${version}`),
  })),
  withHeaders('RFC 9112 3.2', 'no Host header', 101, { Host: undefined }),
  ...['', 'a b', '[::1', 'localhost:99999'].map((host) =>
    withHeaders('RFC 9112 3.2', `Host: ${JSON.stringify(host)}`, 400, { Host: host }),
  ),
  ...['a/b', 'a@b'].map((host) =>
    withHeaders('RFC 9112 3.2', `Host: ${host}, which the platform takes`, 101, { Host: host }),
  ),
  ...['localhost:1', 'example.com', '[::1]:8080', 'EXAMPLE.com:80'].map((host) =>
    withHeaders('RFC 9112 3.2', `Host: ${host}`, 101, { Host: host }),
  ),
  withHeaders('RFC 6455 10.2', 'Origin: http://elsewhere.example', 101, {
    Origin: 'http://elsewhere.example',
  }),
  withHeaders('RFC 6455 10.2', 'Origin: null', 101, { Origin: 'null' }),
  withHeaders('RFC 6455 10.2', 'Sec-WebSocket-Origin of version 8', 101, {
    'Sec-WebSocket-Version': '8',
    'Sec-WebSocket-Origin': 'http://localhost',
  }),
  withHeaders('RFC 6455 4.2.2', 'other headers', 101, {
    Cookie: 'a=b; c=d',
    'X-Forwarded-For': '1.2.3.4',
    'X-E': 'é',
  }),
  withHeaders('RFC 9112 6', 'a handshake with Content-Length: 0', 101, { 'Content-Length': '0' }),
  withHeaders('RFC 9112 5', 'a header of 20 kB', 431, { 'X-Long': 'x'.repeat(20_000) }),
];

const targets: HandshakeCase[] = (
  [
    ['/plain?id=ID&x=%zz', 101],
    ['/plain?id=ID#fragment', 101],
    ['/plain?id=ID?id=2', 101],
    ['/plain/?id=ID', 0],
    ['/Plain?id=ID', 0],
    ['/plain2?id=ID', 0],
    ['/plai?id=ID', 0],
    ['//plain?id=ID', 0],
    ['/%70lain?id=ID', 0],
    ['/plain%20?id=ID', 0],
    ['/plain;a=b?id=ID', 0],
    ['/./plain?id=ID', 101],
    ['/a/../plain?id=ID', 101],
    ['/../plain?id=ID', 101],
    ['/\\plain?id=ID', 0],
    ['/nowhere?id=ID', 0],
    ['/?id=ID', 0],
    ['?id=ID', 400],
    ['*', 0],
    ['http://localhost/plain?id=ID', 101],
    ['ws://localhost/plain?id=ID', 101],
    ['http://localhost/nowhere?id=ID', 0],
    ['ftp://localhost/plain?id=ID', 101],
    ['http://[/plain?id=ID', 400],
  ] as const
).map(([target, status]) => ({
  rule: 'RFC 6455 4.2.1',
  title: `target ${target}`,
  status,
  request: request(target),
}));

const subprotocols: HandshakeCase[] = ['/plain?id=ID', '/protocols?id=ID'].flatMap((target) =>
  (
    [
      ['chat', 101],
      ['chat, chat.v2', 101],
      ['chat,chat.v2', 101],
      ['chat.v2 , other', 101],
      ['superchat, other', 101],
      ["!#$%&'*+-.^_`|~09azAZ", 101],
      [['chat', 'chat.v2'], 101],
      ['', 400],
      [',', 400],
      ['chat,', 400],
      [',chat', 400],
      ['chat,,chat.v2', 400],
      ['chat chat', 400],
      ['chat, chat', 400],
      ['ch@t', 400],
      ['ch"at"', 400],
      ['chat(v2)', 400],
      ['chät', 400],
      ['chat;v=2', 400],
    ] as const
  ).map(([offered, status]) =>
    withHeaders(
      'RFC 6455 4.2.2',
      `subprotocols ${JSON.stringify(offered)} at ${target.split('?')[0]}`,
      status,
      { 'Sec-WebSocket-Protocol': offered },
      target,
    ),
  ),
);

/** An offer, and what `/deflate` and `/deflate-strict` answer. `/plain` takes no extension, and reads no offer. */
const OFFERS: readonly (readonly [string | readonly string[], number, number])[] = [
  ['permessage-deflate', 101, 400],
  ['permessage-deflate; client_max_window_bits', 101, 101],
  ['permessage-deflate;client_max_window_bits', 101, 101],
  ['permessage-deflate  ;  client_max_window_bits', 101, 101],
  ['permessage-deflate; client_max_window_bits=8', 101, 400],
  ['permessage-deflate; client_max_window_bits=10', 101, 101],
  ['permessage-deflate; client_max_window_bits="10"', 101, 101],
  ['permessage-deflate; client_max_window_bits=15', 101, 101],
  ['permessage-deflate; client_max_window_bits=7', 400, 400],
  ['permessage-deflate; client_max_window_bits=16', 400, 400],
  ['permessage-deflate; client_max_window_bits=x', 400, 400],
  ['permessage-deflate; client_max_window_bits=', 400, 400],
  ['permessage-deflate; client_max_window_bits=10.5', 400, 400],
  ['permessage-deflate; client_max_window_bits; client_max_window_bits', 400, 400],
  ['permessage-deflate; client_max_window_bits=9; client_max_window_bits=10', 400, 400],
  ['permessage-deflate; server_max_window_bits', 400, 400],
  ['permessage-deflate; server_max_window_bits=8', 101, 400],
  ['permessage-deflate; server_max_window_bits=9; client_max_window_bits', 101, 400],
  ['permessage-deflate; server_max_window_bits=10; client_max_window_bits', 101, 101],
  ['permessage-deflate; server_max_window_bits=15; client_max_window_bits', 101, 101],
  ['permessage-deflate; server_max_window_bits=16', 400, 400],
  ['permessage-deflate; server_no_context_takeover', 101, 400],
  ['permessage-deflate; server_no_context_takeover=1', 400, 400],
  ['permessage-deflate; client_no_context_takeover; client_max_window_bits', 101, 101],
  ['permessage-deflate; client_no_context_takeover=true', 400, 400],
  ['permessage-deflate; unknown', 400, 400],
  ['permessage-deflate; unknown=1; client_max_window_bits', 400, 400],
  ['permessage-deflate; server_max_window_bits=7, permessage-deflate', 400, 400],
  [
    'permessage-deflate; server_max_window_bits=9; client_max_window_bits, permessage-deflate; client_max_window_bits',
    101,
    101,
  ],
  ['permessage-deflate, permessage-deflate; client_max_window_bits', 101, 101],
  [['permessage-deflate; client_max_window_bits', 'permessage-deflate'], 101, 101],
  ['x-webkit-deflate-frame', 101, 101],
  ['x-webkit-deflate-frame, permessage-deflate; client_max_window_bits', 101, 101],
  ['permessage-bzip2; level=9, permessage-deflate; client_max_window_bits', 101, 101],
  ['foo; bar="baz"', 101, 101],
  ['foo; bar="b az"', 400, 400],
  ['foo; bar="baz', 400, 400],
  ['foo; bar="b\\az"', 101, 101],
  ['', 400, 400],
  [',', 400, 400],
  [';', 400, 400],
  ['permessage-deflate,', 400, 400],
  ['permessage-deflate;', 400, 400],
  ['permessage-deflate; =10', 400, 400],
  ['permessage-deflate; client_max_window_bits =10', 400, 400],
  ['permessage deflate', 400, 400],
  ['PerMessage-Deflate', 101, 101],
];

const extensions: HandshakeCase[] = OFFERS.flatMap(([offer, lenient, strict]) =>
  (
    [
      ['/plain', 101],
      ['/deflate', lenient],
      ['/deflate-strict', strict],
    ] as const
  ).map(([path, status]) =>
    withHeaders(
      'RFC 7692 7',
      `extensions ${JSON.stringify(offer)} at ${path}`,
      status,
      { 'Sec-WebSocket-Extensions': offer },
      `${path}?id=ID`,
    ),
  ),
);

const early: HandshakeCase[] = [
  {
    ...withHeaders('RFC 6455 4.1', 'a message in the segment of the request', 101, {}),
    head: frame(TEXT, 'early'),
  },
  {
    ...withHeaders('RFC 6455 4.1', 'half a message in the segment of the request', 101, {}),
    head: Buffer.concat([frame(TEXT, 'early'), frame(TEXT, 'a', { fin: false }), frame(0, 'b')]),
  },
  {
    ...withHeaders('RFC 6455 4.1', 'an invalid frame in the segment of the request', 101, {}),
    head: frame(TEXT, 'early', { mask: undefined }),
  },
];

testHandshakes('requests', requests);
testHandshakes('targets', targets);
testHandshakes('subprotocols', subprotocols);
testHandshakes('offers of extensions', extensions);
testHandshakes('data behind the request', early);
testHandshakes(
  'a segment for each byte',
  [requests[0], subprotocols[1], extensions[1], requests.at(-3), early[0]]
    .filter((one) => one !== undefined)
    .map((one) => ({ ...one, title: `${one.title}, byte by byte` })),
  true,
);
testTable('handshake');
