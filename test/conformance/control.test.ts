import { type FrameCase, testFrameCases, useSides } from './support/frame-case.js';
import { BINARY, CLOSE, CONTINUATION, closePayload, frame, PING, PONG, TEXT } from './support/wire.js';

const sides = useSides();

const VALID_CODES = [
  1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999,
];
const INVALID_CODES = [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 1999, 2000, 2999, 5000, 32_768, 65_535];

function closing(): FrameCase[] {
  const cases: FrameCase[] = [];
  const rule = 'RFC 6455 7.4';
  cases.push(
    { rule: 'RFC 6455 5.5.1', title: 'a close without a payload', segments: [frame(CLOSE)], outcome: 1005 },
    {
      rule: 'RFC 6455 5.5.1',
      title: 'a close with a payload of 1 byte',
      segments: [frame(CLOSE, 'x')],
      outcome: 1002,
    },
  );
  for (const code of VALID_CODES) {
    for (const reason of ['', 'bye', 'κ€😀', 'x'.repeat(123)]) {
      cases.push({
        rule,
        title: `code ${code} with a reason of ${Buffer.byteLength(reason)} bytes`,
        segments: [frame(CLOSE, closePayload(code, reason))],
        outcome: code,
      });
    }
  }
  for (const code of INVALID_CODES) {
    for (const reason of ['', 'bye']) {
      cases.push({
        rule,
        title: `code ${code}, which must not be sent, with a reason of ${reason.length} bytes`,
        segments: [frame(CLOSE, closePayload(code, reason)), frame(TEXT, 'after')],
        outcome: 1002,
        messages: [],
      });
    }
  }
  for (const length of [124, 125, 300]) {
    cases.push({
      rule: 'RFC 6455 5.5',
      title: `a close with a reason of ${length} bytes, more than a control frame takes`,
      segments: [frame(CLOSE, closePayload(1000, 'x'.repeat(length)))],
      outcome: 1002,
    });
  }
  for (const digits of ['80', 'c0af', 'eda080', 'f4908080', 'ff', 'e282', 'f09f98']) {
    for (const before of ['', 'a', 'κ€', 'x'.repeat(100)]) {
      cases.push({
        rule: 'RFC 6455 5.5.1',
        title: `a close whose reason is ${Buffer.byteLength(before)} bytes and the invalid UTF-8 ${digits}`,
        segments: [
          frame(CLOSE, closePayload(1000, Buffer.concat([Buffer.from(before), Buffer.from(digits, 'hex')]))),
        ],
        outcome: 1007,
      });
    }
  }
  const after: readonly [string, Buffer][] = [
    ['a text', frame(TEXT, 'late')],
    ['a binary message', frame(BINARY, 'late')],
    ['a fragment', frame(TEXT, 'late', { fin: false })],
    ['a ping', frame(PING, 'late')],
    ['a pong', frame(PONG, 'late')],
    ['an empty pong', frame(PONG)],
    ['another close', frame(CLOSE, closePayload(1001))],
    ['an invalid frame', frame(3, 'late', { mask: undefined })],
    ['bytes without a meaning', Buffer.from('ffffffffffffffffffff', 'hex')],
  ];
  for (const [name, bytes] of after) {
    const close = frame(CLOSE, closePayload(1000, 'bye'));
    const before = frame(TEXT, 'early');
    cases.push(
      {
        rule: 'RFC 6455 5.5.1',
        title: `${name} after a close`,
        segments: [before, close, bytes],
        outcome: 1000,
        messages: ['text early'],
      },
      {
        rule: 'RFC 6455 5.5.1',
        title: `${name} after a close in one segment`,
        segments: [Buffer.concat([before, close, bytes])],
        outcome: 1000,
        messages: ['text early'],
      },
      {
        rule: 'RFC 6455 7.1.7',
        title: `${name} after a protocol error in one segment`,
        segments: [Buffer.concat([before, frame(15), bytes])],
        outcome: 1002,
        messages: ['text early'],
      },
      {
        rule: 'RFC 6455 7.1.7',
        title: `${name} after a protocol error`,
        segments: [before, frame(15), bytes],
        outcome: 1002,
        messages: ['text early'],
      },
    );
  }
  const close = frame(CLOSE, closePayload(4321, 'in pieces'));
  for (let at = 1; at < close.length; at++) {
    cases.push({
      rule: 'RFC 6455 5.5.1',
      title: `a close in two segments, split at ${at}`,
      segments: [close.subarray(0, at), close.subarray(at)],
      outcome: 4321,
    });
  }
  cases.push(
    {
      rule: 'RFC 6455 5.5.1',
      title: 'many messages and a close in one segment',
      segments: [
        Buffer.concat([
          ...Array.from({ length: 40 }, (_, i) => frame(TEXT, `${i}`)),
          frame(CLOSE, closePayload(1000)),
        ]),
      ],
      outcome: 1000,
      messages: Array.from({ length: 40 }, (_, i) => `text ${i}`),
    },
    {
      rule: 'RFC 6455 7.1.5',
      title: 'the end of the connection without a close',
      segments: [],
      outcome: 'ended',
      last: 'fin',
    },
    {
      rule: 'RFC 6455 7.1.5',
      title: 'a close and the end of the connection in one segment',
      segments: [frame(CLOSE, closePayload(1000))],
      outcome: 1000,
      last: 'fin',
    },
    {
      rule: 'RFC 6455 7.1.5',
      title: 'messages, then the end of the connection',
      segments: [Buffer.concat([frame(TEXT, 'a'), frame(TEXT, 'b')])],
      outcome: 'ended',
      messages: ['text a', 'text b'],
      last: 'fin',
    },
  );
  return cases;
}

function pings(): FrameCase[] {
  const cases: FrameCase[] = [];
  for (let size = 0; size <= 125; size++) {
    cases.push({
      rule: 'RFC 6455 5.5.3',
      title: `a ping of ${size} bytes is answered with its payload`,
      segments: [frame(PING, Buffer.from(Array.from({ length: size }, (_, i) => 255 - i)))],
      outcome: 'open',
    });
  }
  for (const opcode of [PING, PONG]) {
    for (const size of [126, 127, 1_000, 65_536]) {
      cases.push({
        rule: 'RFC 6455 5.5',
        title: `a control frame ${opcode} of ${size} bytes`,
        segments: [frame(TEXT, 'before'), frame(opcode, Buffer.alloc(size, 'x')), frame(TEXT, 'after')],
        outcome: 1002,
        messages: ['text before'],
      });
    }
  }
  for (const count of [1, 2, 10, 60, 61, 100, 500]) {
    for (const payload of ['', 'flood']) {
      const flood = Array.from({ length: count }, () => frame(PING, payload));
      cases.push(
        {
          rule: 'RFC 6455 5.5.3',
          title: `${count} pings of ${payload.length} bytes in one segment`,
          segments: [Buffer.concat(flood)],
          outcome: 'open',
        },
        {
          rule: 'RFC 6455 5.5.3',
          title: `${count} pings of ${payload.length} bytes, each in a segment`,
          segments: flood,
          outcome: 'open',
        },
        {
          rule: 'RFC 6455 5.5.3',
          title: `${count} pings of ${payload.length} bytes between messages`,
          segments: [Buffer.concat(flood.flatMap((ping, i) => [frame(TEXT, `${i}`), ping]))],
          outcome: 'open',
        },
      );
    }
  }
  return cases;
}

/** The module reads an empty pong by itself where it comes alone: every way in which it does not has to reach `ws`. */
function pongs(): FrameCase[] {
  const rule = 'RFC 6455 5.5.3';
  const cases: FrameCase[] = [];
  const empty = frame(PONG);
  const add = (title: string, segments: readonly Buffer[], messages: readonly string[] = []) =>
    cases.push({ rule, title, segments, outcome: 'open', messages });
  for (const size of [0, 1, 4, 124, 125]) {
    const pong = frame(PONG, 'x'.repeat(size));
    add(`an unsolicited pong of ${size} bytes`, [pong]);
    add(`three unsolicited pongs of ${size} bytes`, [pong, pong, pong]);
    add(`three unsolicited pongs of ${size} bytes in one segment`, [Buffer.concat([pong, pong, pong])]);
    add(`a pong of ${size} bytes, a message after it`, [pong, frame(TEXT, 'x')], ['text x']);
    add(
      `a pong of ${size} bytes with a message after it in one segment`,
      [Buffer.concat([pong, frame(TEXT, 'x')])],
      ['text x'],
    );
    add(
      `a pong of ${size} bytes with a message before it in one segment`,
      [Buffer.concat([frame(TEXT, 'x'), pong])],
      ['text x'],
    );
  }
  for (let at = 1; at < empty.length; at++) {
    const [head, tail] = [empty.subarray(0, at), empty.subarray(at)];
    add(`an empty pong in two segments, split at ${at}`, [head, tail, frame(TEXT, 'x')], ['text x']);
    add(
      `an empty pong split at ${at}, its end with a message`,
      [head, Buffer.concat([tail, frame(TEXT, 'x')])],
      ['text x'],
    );
    add(
      `an empty pong split at ${at}, its end with a pong`,
      [head, Buffer.concat([tail, empty]), frame(TEXT, 'x')],
      ['text x'],
    );
    add(
      `an empty pong split at ${at}, its beginning with a message`,
      [Buffer.concat([frame(TEXT, 'x'), head]), tail],
      ['text x'],
    );
  }
  add(
    'an empty pong in a segment for each byte',
    Array.from(empty, (byte) => Buffer.from([byte])),
  );
  // Six bytes that look like an empty pong, and are a part of something else.
  for (const [name, opcode] of [
    ['text', TEXT],
    ['binary', BINARY],
  ] as const) {
    const zero = Buffer.alloc(4);
    // Masked with zeros, the payload is on the wire as it is.
    const payload = Buffer.concat([
      Buffer.from('ab'),
      opcode === TEXT ? Buffer.from('pong!!') : empty,
      Buffer.from('cd'),
    ]);
    const message = frame(opcode, payload, { mask: zero });
    const start = message.length - payload.length + 2;
    add(
      `a ${name} message with the bytes of a pong in a segment of its own`,
      [message.subarray(0, start), message.subarray(start, start + 6), message.subarray(start + 6)],
      [`${name} ${opcode === TEXT ? payload : payload.toString('hex')}`],
    );
  }
  const binary = frame(BINARY, empty, { mask: Buffer.alloc(4) });
  add(
    'a binary message that is the bytes of a pong',
    [binary.subarray(0, 6), binary.subarray(6)],
    [`binary ${empty.toString('hex')}`],
  );
  const lengthAsPong = frame(BINARY, Buffer.alloc(0x8a80 - 0x4000, 1));
  cases.push({
    rule,
    title: 'a masking key and a payload whose bytes look like a pong',
    segments: [
      Buffer.concat([frame(TEXT, 'x'), frame(BINARY, '', { declared: 6n }).subarray(0, 2)]),
      Buffer.from('8a8000000000', 'hex'),
      Buffer.alloc(4),
    ],
    outcome: 'open',
    // The four bytes of zeros are masked with 8a800000.
    messages: ['text x', 'binary 8a8000008a80'],
  });
  cases.push({
    rule,
    title: 'a message whose length field begins like a pong',
    segments: [lengthAsPong.subarray(0, 2), lengthAsPong.subarray(2, 8), lengthAsPong.subarray(8)],
    outcome: 'open',
  });
  for (let at = 1; at <= 3; at++) {
    const parts = [
      frame(TEXT, 'a', { fin: false }),
      frame(CONTINUATION, 'b', { fin: false }),
      frame(CONTINUATION, 'c'),
    ];
    parts.splice(at, 0, empty);
    add(`an empty pong as frame ${at + 1} of a fragmented message`, parts, ['text abc']);
  }
  cases.push(
    {
      rule: 'RFC 6455 5.1',
      title: 'an empty pong without a mask',
      segments: [Buffer.from('8a00', 'hex')],
      outcome: 1002,
    },
    {
      rule: 'RFC 6455 5.1',
      title: 'an empty pong without a mask and four bytes after it',
      segments: [Buffer.from('8a0000000000', 'hex')],
      outcome: 1002,
    },
    {
      rule: 'RFC 6455 5.5',
      title: 'an empty pong with FIN clear',
      segments: [frame(PONG, '', { fin: false })],
      outcome: 1002,
    },
    {
      rule: 'RFC 6455 5.2',
      title: 'an empty pong with RSV1',
      segments: [frame(PONG, '', { rsv: 4 })],
      outcome: 1002,
    },
    {
      rule: 'RFC 6455 5.5.1',
      title: 'an empty pong after a close',
      segments: [frame(CLOSE, closePayload(1000)), empty, empty],
      outcome: 1000,
    },
    {
      rule: 'RFC 6455 7.1.7',
      title: 'an empty pong after a protocol error',
      segments: [frame(15), empty, empty],
      outcome: 1002,
    },
    {
      rule: 'RFC 6455 5.5.3',
      title: 'an empty pong, then the end',
      segments: [empty],
      outcome: 'ended',
      last: 'fin',
    },
    {
      rule: 'RFC 6455 5.5.3',
      title: 'half an empty pong, then the end',
      segments: [empty.subarray(0, 3)],
      outcome: 'ended',
      last: 'fin',
    },
  );
  return cases;
}

testFrameCases('closing', sides, closing());
testFrameCases('pings', sides, pings());
testFrameCases('pongs', sides, pongs());
