import { constants, deflateRawSync, deflateSync, gzipSync } from 'node:zlib';
import { SeededRandom } from '../support/seeded-random.js';
import { type FrameCase, shown, testFrameCases, useSides } from './support/frame-case.js';
import { MAX_PAYLOAD } from './support/sides.js';
import {
  BINARY,
  CLOSE,
  CONTINUATION,
  closePayload,
  type FrameOptions,
  frame,
  PING,
  PONG,
  TEXT,
} from './support/wire.js';

const sides = useSides();

const OFFER = 'permessage-deflate; client_max_window_bits';
/** The server starts each message anew. */
const FRESH = 'permessage-deflate; server_no_context_takeover; client_no_context_takeover';
const COMPRESSED: FrameOptions = { rsv: 4 };

/** As RFC 7692 7.2.1 has it: flushed, without the last four bytes. */
function deflate(data: Buffer | string, dictionary?: Buffer, windowBits = 15): Buffer {
  const finishFlush = constants.Z_SYNC_FLUSH;
  const whole = deflateRawSync(data, { finishFlush, windowBits, ...(dictionary ? { dictionary } : {}) });
  return whole.subarray(0, -4);
}

function compressed(opcode: number, data: Buffer | string): Buffer {
  return frame(opcode, deflate(data), COMPRESSED);
}

function parts(opcode: number, payload: Buffer, offsets: readonly number[]): Buffer[] {
  const ends = [...offsets, payload.length];
  return ends.map((end, i) =>
    frame(i === 0 ? opcode : CONTINUATION, payload.subarray(ends[i - 1] ?? 0, end), {
      fin: i === ends.length - 1,
      rsv: i === 0 ? 4 : 0,
    }),
  );
}

function messages(): FrameCase[] {
  const rule = 'RFC 7692 7.2';
  const cases: FrameCase[] = [];
  const random = new SeededRandom(7_692);
  const contents: readonly [string, Buffer][] = [
    ['an empty message', Buffer.alloc(0)],
    ['one byte', Buffer.from('a')],
    ['a short text', Buffer.from('Hello')],
    ['text of all lengths of UTF-8', Buffer.from('κa€😀ßz'.repeat(5))],
    ['1000 equal bytes', Buffer.alloc(1_000, 'x')],
    [
      'JSON',
      Buffer.from(JSON.stringify(Array.from({ length: 40 }, (_, i) => ({ id: i, name: `name ${i}` })))),
    ],
    ['maxPayload bytes', Buffer.alloc(MAX_PAYLOAD, 'y')],
  ];
  const binary: readonly [string, Buffer][] = [
    ...contents,
    ['bytes that do not shrink', random.bytes(3_000)],
  ];
  for (const offer of [OFFER, FRESH]) {
    const add = (one: Omit<FrameCase, 'rule' | 'path' | 'offer'> & { rule?: string }) =>
      cases.push({ rule, path: '/deflate', offer, ...one, title: `${one.title} (${offer.slice(20)})` });
    for (const opcode of [TEXT, BINARY]) {
      for (const [name, data] of opcode === TEXT ? contents : binary) {
        const payload = deflate(data);
        const expected = [shown(data, opcode === BINARY)];
        const title = `${name}, opcode ${opcode}`;
        add({ title, segments: [compressed(opcode, data)], outcome: 'open', messages: expected });
        add({
          title: `${title}, not compressed`,
          segments: [frame(opcode, data)],
          outcome: 'open',
          messages: expected,
        });
        add({
          title: `${title}, split in three fragments`,
          segments: parts(opcode, payload, [payload.length >> 2, payload.length >> 1]),
          outcome: 'open',
          messages: expected,
        });
        add({
          title: `${title}, fragments with a ping and empty ones between`,
          segments: [
            Buffer.concat(
              parts(opcode, payload, [0, 1, 1])
                .flatMap((part) => [part, frame(PING, 'p')])
                .slice(0, -1),
            ),
          ],
          outcome: 'open',
          messages: expected,
        });
        add({
          title: `${title}, with an empty pong after it in a segment of its own`,
          segments: [
            compressed(opcode, data),
            frame(PONG),
            compressed(opcode, data),
            frame(PONG),
            frame(PONG),
          ],
          outcome: 'open',
          messages: [...expected, ...expected],
        });
      }
    }
    add({
      title: 'each byte of a compressed message in a segment',
      segments: Array.from(compressed(TEXT, 'Hello, Hello'), (byte) => Buffer.from([byte])),
      outcome: 'open',
      messages: ['text Hello, Hello'],
    });
    add({
      title: 'one fragment for each byte of a compressed message',
      segments: parts(
        TEXT,
        deflate('Hello, Hello'),
        Array.from({ length: deflate('Hello, Hello').length - 1 }, (_, i) => i + 1),
      ),
      outcome: 'open',
      messages: ['text Hello, Hello'],
    });
    add({
      title: 'a block that is not compressed (RFC 7692 7.2.3.3)',
      segments: [frame(TEXT, Buffer.from('000500faff48656c6c6f00', 'hex'), COMPRESSED)],
      outcome: 'open',
      messages: ['text Hello'],
    });
    add({
      title: 'a block with BFINAL set (RFC 7692 7.2.3.4), then another message',
      segments: [frame(TEXT, Buffer.from('f348cdc9c9070000', 'hex'), COMPRESSED), compressed(TEXT, 'next')],
      outcome: 'open',
      messages: ['text Hello', 'text next'],
    });
    add({
      title: 'two blocks in one message (RFC 7692 7.2.3.5)',
      segments: [frame(TEXT, Buffer.from('f24805000000ffffcac9c90700', 'hex'), COMPRESSED)],
      outcome: 'open',
      messages: ['text Hello'],
    });
    add({
      title: 'an empty message of one byte 00 (RFC 7692 7.2.3.6)',
      segments: [frame(TEXT, Buffer.from('00', 'hex'), COMPRESSED)],
      outcome: 'open',
      messages: ['text '],
    });
    add({
      title: 'many compressed and other messages in one segment',
      segments: [
        Buffer.concat(
          Array.from({ length: 30 }, (_, i) =>
            i % 3 === 0 ? frame(TEXT, `${i}`) : compressed(TEXT, `${i}`.repeat(i)),
          ),
        ),
      ],
      outcome: 'open',
      messages: Array.from({ length: 30 }, (_, i) =>
        shown(Buffer.from(i % 3 === 0 ? `${i}` : `${i}`.repeat(i)), false),
      ),
    });
    add({
      title: 'a close after compressed messages in one segment',
      segments: [
        Buffer.concat([
          compressed(TEXT, 'a'.repeat(500)),
          compressed(TEXT, 'b'),
          frame(CLOSE, closePayload(1000)),
        ]),
      ],
      outcome: 1000,
    });
    for (const [name, opcode, invalidDigits] of [
      ['invalid UTF-8', TEXT, 'c0af'],
      ['a surrogate', TEXT, 'eda080'],
      ['truncated UTF-8', TEXT, 'f09f98'],
    ] as const) {
      add({
        rule: 'RFC 6455 8.1',
        title: `${name} under compression`,
        segments: [
          compressed(opcode, Buffer.concat([Buffer.from('ok'), Buffer.from(invalidDigits, 'hex')])),
          frame(TEXT, 'x'),
        ],
        outcome: 1007,
        messages: [],
      });
    }
  }
  return cases;
}

function takeover(): FrameCase[] {
  const rule = 'RFC 7692 7.1.1';
  const first = Buffer.from('the quick brown fox jumps over the lazy dog');
  const second = deflate(first, first);
  const cases: FrameCase[] = [
    {
      rule,
      title: 'a message that refers to the one before it',
      path: '/deflate',
      offer: OFFER,
      segments: [compressed(TEXT, first), frame(TEXT, second, COMPRESSED)],
      outcome: 'open',
      messages: [shown(first, false), shown(first, false)],
    },
    {
      rule,
      title: 'the same in one segment, with control frames between',
      path: '/deflate',
      offer: OFFER,
      segments: [
        Buffer.concat([compressed(TEXT, first), frame(PING), frame(PONG), frame(TEXT, second, COMPRESSED)]),
      ],
      outcome: 'open',
      messages: [shown(first, false), shown(first, false)],
    },
    {
      rule,
      title: 'the same where the client has given up context takeover',
      path: '/deflate',
      offer: FRESH,
      segments: [compressed(TEXT, first), frame(TEXT, second, COMPRESSED), frame(TEXT, 'x')],
      outcome: 1007,
      messages: [shown(first, false)],
    },
  ];
  for (const text of ['repeat '.repeat(100), 'short']) {
    cases.push({
      rule,
      title: `the server's own output, three times the same ${text.length} bytes`,
      path: '/deflate',
      offer: OFFER,
      segments: [compressed(TEXT, text), frame(TEXT, text), frame(TEXT, text)],
      outcome: 'open',
    });
    cases.push({
      rule,
      title: `the server's own output without context takeover, three times the same ${text.length} bytes`,
      path: '/deflate',
      offer: FRESH,
      segments: [compressed(TEXT, text), frame(TEXT, text), frame(TEXT, text)],
      outcome: 'open',
    });
  }
  for (let bits = 9; bits <= 15; bits++) {
    const text = Buffer.from(Array.from({ length: 6_000 }, (_, i) => 32 + ((i * i) % 90)));
    cases.push({
      rule: 'RFC 7692 7.1.2',
      title: `windows of ${bits} bits`,
      path: '/deflate',
      offer: `permessage-deflate; server_max_window_bits=${bits}; client_max_window_bits=${bits}`,
      segments: [frame(TEXT, deflate(text, undefined, bits), COMPRESSED), frame(TEXT, text)],
      outcome: 'open',
      messages: [shown(text, false), shown(text, false)],
    });
  }
  return cases;
}

function errors(): FrameCase[] {
  const cases: FrameCase[] = [];
  const add = (one: Omit<FrameCase, 'path' | 'offer'>) =>
    cases.push({ path: '/deflate', offer: OFFER, ...one });
  const payload = deflate('Hello, Hello');
  for (const fin of [true, false]) {
    add({
      rule: 'RFC 7692 6.1',
      title: `RSV1 on a continuation (FIN ${fin}) of a compressed message`,
      segments: [frame(TEXT, payload, { fin: false, rsv: 4 }), frame(CONTINUATION, payload, { fin, rsv: 4 })],
      outcome: 1002,
      messages: [],
    });
    add({
      rule: 'RFC 7692 6.1',
      title: `RSV1 on a continuation (FIN ${fin}) of a message that is not compressed`,
      segments: [frame(TEXT, 'a', { fin: false }), frame(CONTINUATION, payload, { fin, rsv: 4 })],
      outcome: 1002,
      messages: [],
    });
  }
  for (const opcode of [CLOSE, PING, PONG]) {
    for (const bytes of [Buffer.alloc(0), payload]) {
      add({
        rule: 'RFC 7692 6.1',
        title: `RSV1 on control frame ${opcode} of ${bytes.length} bytes`,
        segments: [frame(opcode, bytes, COMPRESSED)],
        outcome: 1002,
        messages: [],
      });
    }
  }
  for (const rsv of [1, 2, 3, 5, 6, 7]) {
    add({
      rule: 'RFC 6455 5.2',
      title: `reserved bits ${rsv} on a message`,
      segments: [frame(TEXT, payload, { rsv })],
      outcome: 1002,
      messages: [],
    });
  }
  const bad: readonly [string, Buffer][] = [
    ['bytes FF', Buffer.alloc(12, 0xff)],
    ['a block type that does not exist', Buffer.from('07', 'hex')],
    ['a stored block with a wrong length', Buffer.from('000500ffff48656c6c6f00', 'hex')],
    ['a distance before the beginning', Buffer.from('0b0000', 'hex')],
    ['text', Buffer.from('not deflated at all')],
    ['zlib format', deflateSync('Hello')],
    ['gzip format', gzipSync('Hello')],
    [
      'a message with a byte changed',
      (() => {
        const copy = Buffer.from(deflate('Hello, Hello, Hello'.repeat(9)));
        copy[3] = (copy[3] as number) ^ 0xff;
        return copy;
      })(),
    ],
  ];
  for (const [name, bytes] of bad) {
    for (const opcode of [TEXT, BINARY]) {
      add({
        rule: 'RFC 7692 7.2.2',
        title: `${name} as compressed data, opcode ${opcode}`,
        segments: [frame(opcode, bytes, COMPRESSED), frame(TEXT, 'after')],
        outcome: 'any',
      });
      add({
        rule: 'RFC 7692 7.2.2',
        title: `${name} as the second fragment, opcode ${opcode}`,
        segments: [
          frame(opcode, payload.subarray(0, 4), { fin: false, rsv: 4 }),
          frame(CONTINUATION, bytes),
          frame(PING),
        ],
        outcome: 'any',
      });
    }
  }
  for (let i = 0; i < 60; i++) {
    const seed = 76_920_000 + i;
    const random = new SeededRandom(seed);
    const text = 'random text '.repeat(1 + random.below(20));
    add({
      rule: 'RFC 7692 7.2.2',
      title: `changed compressed data, seed ${seed}`,
      segments: [frame(BINARY, random.mutate(deflate(text)), COMPRESSED), frame(TEXT, 'after')],
      outcome: 'any',
    });
  }
  for (const size of [MAX_PAYLOAD + 1, 1_000_000, 50_000_000]) {
    const bomb = deflate(Buffer.alloc(size));
    add({
      rule: 'RFC 7692 8',
      title: `${bomb.length} bytes that are ${size} when inflated: more than maxPayload`,
      segments: [frame(BINARY, bomb, COMPRESSED), frame(TEXT, 'after')],
      outcome: 1009,
      messages: [],
    });
    const half = bomb.length >> 1;
    add({
      rule: 'RFC 7692 8',
      title: `${bomb.length} bytes in two fragments that are ${size} when inflated`,
      segments: [Buffer.concat(parts(BINARY, bomb, [half])), frame(TEXT, 'after')],
      outcome: 1009,
      messages: [],
    });
  }
  const half = Buffer.alloc(MAX_PAYLOAD / 2 + 1, 'x');
  add({
    rule: 'RFC 7692 8',
    title: 'two messages that are more than maxPayload together, and not alone',
    segments: [Buffer.concat([compressed(BINARY, half), compressed(BINARY, half)])],
    outcome: 'open',
    messages: [shown(half, true), shown(half, true)],
  });
  for (const path of ['/plain', '/deflate']) {
    cases.push({
      rule: 'RFC 7692 5',
      title: `RSV1 where no extension was negotiated (${path}, no offer)`,
      path,
      segments: [compressed(TEXT, 'Hello')],
      outcome: 1002,
      messages: [],
    });
  }
  cases.push({
    rule: 'RFC 7692 5',
    title: 'RSV1 where the server did not accept the offer',
    path: '/plain',
    offer: OFFER,
    segments: [compressed(TEXT, 'Hello')],
    outcome: 1002,
    messages: [],
  });
  return cases;
}

testFrameCases('compressed messages', sides, messages());
testFrameCases('context takeover and windows', sides, takeover());
testFrameCases('errors of compression', sides, errors());
