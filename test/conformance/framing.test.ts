import { SeededRandom } from '../support/seeded-random.js';
import { type FrameCase, testFrameCases, useSides } from './support/frame-case.js';
import { MAX_PAYLOAD } from './support/sides.js';
import {
  BINARY,
  CLOSE,
  CONTINUATION,
  closePayload,
  fragments,
  frame,
  PING,
  PONG,
  TEXT,
} from './support/wire.js';

const sides = useSides();

/** A message that a connection has to be able to take afterwards. */
const AFTER = frame(TEXT, 'after');

/** In one segment, or each frame in its own. */
function both(frameCase: FrameCase): FrameCase[] {
  const { segments, title } = frameCase;
  if (segments.length < 2) return [frameCase];
  return [
    frameCase,
    { ...frameCase, title: `${title}, in one segment`, segments: [Buffer.concat(segments)] },
  ];
}

function fragmentation(): FrameCase[] {
  const rule = 'RFC 6455 5.4';
  const cases: FrameCase[] = [];
  const text = 'fragment';
  const add = (one: Omit<FrameCase, 'rule'>) => cases.push(...both({ rule, ...one }));
  for (let at = 0; at <= text.length; at++) {
    add({
      title: `a text in two fragments, split at ${at}`,
      segments: [...fragments(TEXT, text, [at]), AFTER],
      outcome: 'open',
      messages: [`text ${text}`, 'text after'],
    });
    for (let second = at; second <= text.length; second += 2) {
      add({
        title: `a text in three fragments, split at ${at} and ${second}`,
        segments: fragments(TEXT, text, [at, second]),
        outcome: 'open',
        messages: [`text ${text}`],
      });
    }
    add({
      title: `a binary message in two fragments, split at ${at}`,
      segments: fragments(BINARY, text, [at]),
      outcome: 'open',
      messages: [`binary ${Buffer.from(text).toString('hex')}`],
    });
  }
  add({
    title: 'one fragment for each byte',
    segments: fragments(TEXT, text, [1, 2, 3, 4, 5, 6, 7]),
    outcome: 'open',
    messages: [`text ${text}`],
  });
  for (const opcode of [TEXT, BINARY]) {
    const name = opcode === TEXT ? 'text' : 'binary';
    add({
      title: `only empty fragments (${name})`,
      segments: fragments(opcode, '', [0, 0, 0, 0]),
      outcome: 'open',
      messages: [`${name} `],
    });
    add({
      title: `a ${name} that was not completed, then the end`,
      segments: [frame(opcode, 'half', { fin: false })],
      outcome: 'ended',
      messages: [],
      last: 'fin',
    });
    for (const next of [TEXT, BINARY]) {
      for (const fin of [true, false]) {
        add({
          title: `a new data frame (opcode ${next}, FIN ${fin}) inside a fragmented ${name}`,
          segments: [frame(opcode, 'one', { fin: false }), frame(next, 'two', { fin }), AFTER],
          outcome: 1002,
          messages: [],
        });
      }
    }
  }
  for (const fin of [true, false]) {
    for (const payload of ['', 'x']) {
      add({
        title: `a continuation (FIN ${fin}, ${payload.length} bytes) without a start`,
        segments: [frame(CONTINUATION, payload, { fin }), AFTER],
        outcome: 1002,
        messages: [],
      });
      add({
        title: `a continuation (FIN ${fin}, ${payload.length} bytes) after a complete message`,
        segments: [frame(TEXT, 'whole'), frame(CONTINUATION, payload, { fin })],
        outcome: 1002,
        messages: ['text whole'],
      });
      add({
        title: `a continuation (FIN ${fin}, ${payload.length} bytes) after a completed fragmented message`,
        segments: [...fragments(TEXT, 'whole', [2]), frame(CONTINUATION, payload, { fin })],
        outcome: 1002,
        messages: ['text whole'],
      });
    }
  }
  const controls: readonly [string, Buffer][] = [
    ['an empty ping', frame(PING)],
    ['a ping', frame(PING, 'in between')],
    ['an empty pong', frame(PONG)],
    ['a pong', frame(PONG, 'in between')],
  ];
  const parts = fragments(TEXT, text, [0, 3, 3, 6]);
  for (const [name, control] of controls) {
    for (let at = 0; at <= parts.length; at++) {
      add({
        title: `${name} before fragment ${at + 1} of ${parts.length}`,
        segments: [...parts.slice(0, at), control, ...parts.slice(at)],
        outcome: 'open',
        messages: [`text ${text}`],
      });
    }
    add({
      title: `${name} between all fragments`,
      segments: parts.flatMap((part) => [control, part, control]),
      outcome: 'open',
      messages: [`text ${text}`],
    });
  }
  add({
    title: 'a close inside a fragmented message',
    segments: [frame(TEXT, 'half', { fin: false }), frame(CLOSE, closePayload(1000))],
    outcome: 1000,
    messages: [],
  });
  add({
    title: 'thousands of fragments',
    segments: [
      Buffer.concat(
        fragments(
          BINARY,
          Buffer.alloc(5_000, 7),
          Array.from({ length: 4_999 }, (_, i) => i + 1),
        ),
      ),
    ],
    outcome: 'open',
  });
  add({
    title: 'more fragments than the platform takes',
    segments: [Buffer.concat(fragments(BINARY, '', new Array<number>(16 * 1024 + 1).fill(0)))],
    outcome: 1008,
  });
  for (const opcode of [CLOSE, PING, PONG]) {
    for (const payload of ['', 'ab']) {
      cases.push(
        ...both({
          rule: 'RFC 6455 5.5',
          title: `a fragmented control frame (opcode ${opcode}, ${payload.length} bytes)`,
          segments: [frame(opcode, payload, { fin: false }), frame(CONTINUATION, payload)],
          outcome: 1002,
          messages: [],
        }),
        ...both({
          rule: 'RFC 6455 5.5',
          title: `a fragmented control frame (opcode ${opcode}, ${payload.length} bytes) inside a fragmented message`,
          segments: [
            frame(TEXT, 'a', { fin: false }),
            frame(opcode, payload, { fin: false }),
            frame(CONTINUATION),
          ],
          outcome: 1002,
          messages: [],
        }),
      );
    }
  }
  return cases;
}

function reserved(): FrameCase[] {
  const cases: FrameCase[] = [];
  for (let rsv = 1; rsv < 8; rsv++) {
    for (const opcode of [CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG]) {
      for (const payload of ['', 'xx']) {
        const start = opcode === CONTINUATION ? [frame(TEXT, 'a', { fin: false })] : [];
        cases.push({
          rule: 'RFC 6455 5.2',
          title: `reserved bits ${rsv} on opcode ${opcode} with ${payload.length} bytes`,
          segments: [...start, frame(opcode, payload, { rsv }), AFTER],
          outcome: 1002,
          messages: [],
        });
      }
    }
  }
  for (const opcode of [3, 4, 5, 6, 7, 11, 12, 13, 14, 15]) {
    for (const fin of [true, false]) {
      for (const payload of ['', 'xx', 'x'.repeat(126)]) {
        cases.push(
          {
            rule: 'RFC 6455 5.2',
            title: `reserved opcode ${opcode} (FIN ${fin}, ${payload.length} bytes)`,
            segments: [frame(TEXT, 'before'), frame(opcode, payload, { fin }), AFTER],
            outcome: 1002,
            messages: ['text before'],
          },
          {
            rule: 'RFC 6455 5.2',
            title: `reserved opcode ${opcode} (FIN ${fin}, ${payload.length} bytes) inside a fragmented message`,
            segments: [Buffer.concat([frame(TEXT, 'a', { fin: false }), frame(opcode, payload, { fin })])],
            outcome: 1002,
            messages: [],
          },
        );
      }
    }
  }
  return cases;
}

function masking(): FrameCase[] {
  const cases: FrameCase[] = [];
  for (const opcode of [TEXT, BINARY, CLOSE, PING, PONG]) {
    for (const payload of ['', 'xx', 'x'.repeat(opcode > 7 ? 125 : 300)]) {
      cases.push({
        rule: 'RFC 6455 5.1',
        title: `an unmasked frame of a client (opcode ${opcode}, ${payload.length} bytes)`,
        segments: [frame(opcode, payload, { mask: undefined }), AFTER],
        outcome: 1002,
        messages: [],
      });
    }
  }
  cases.push(
    {
      rule: 'RFC 6455 5.1',
      title: 'an unmasked continuation of a masked start',
      segments: [frame(TEXT, 'a', { fin: false }), frame(CONTINUATION, 'b', { mask: undefined })],
      outcome: 1002,
      messages: [],
    },
    {
      rule: 'RFC 6455 5.1',
      title: 'a masked message after an unmasked one is not read',
      segments: [Buffer.concat([frame(TEXT, 'a', { mask: undefined }), frame(TEXT, 'b')])],
      outcome: 1002,
      messages: [],
    },
  );
  for (const key of ['00000000', 'ffffffff', '01000000', '00000001', '80808080', '12345678']) {
    const mask = Buffer.from(key, 'hex');
    for (const length of [0, 1, 2, 3, 4, 5, 7, 8, 9, 31, 47, 48, 49, 126, 1_000]) {
      const payload = Buffer.from(Array.from({ length }, (_, i) => (i * 7) & 0xff));
      cases.push({
        rule: 'RFC 6455 5.3',
        title: `the masking key ${key} over ${length} bytes`,
        segments: [frame(BINARY, payload, { mask })],
        outcome: 'open',
        ...(length <= 160 ? { messages: [`binary ${payload.toString('hex')}`] } : {}),
      });
    }
    cases.push({
      rule: 'RFC 6455 5.3',
      title: `an empty pong with the masking key ${key}`,
      segments: [frame(PONG, '', { mask }), frame(TEXT, 'x', { mask })],
      outcome: 'open',
      messages: ['text x'],
    });
  }
  return cases;
}

function lengths(): FrameCase[] {
  const rule = 'RFC 6455 5.2';
  const cases: FrameCase[] = [];
  const sizes = [0, 1, 2, 124, 125, 126, 127, 128, 255, 256, 65_534, 65_535, 65_536, 65_537];
  for (const opcode of [TEXT, BINARY]) {
    for (const size of [...sizes, MAX_PAYLOAD - 1, MAX_PAYLOAD]) {
      const payload = Buffer.alloc(size, 'x');
      cases.push(
        {
          rule,
          title: `${size} bytes, opcode ${opcode}`,
          segments: [frame(opcode, payload), AFTER],
          outcome: 'open',
        },
        {
          rule,
          title: `${size} bytes, opcode ${opcode}, header and payload apart`,
          segments: split(frame(opcode, payload), [1, 2, 4, 8, 10, 14]),
          outcome: 'open',
        },
      );
    }
    for (const size of [MAX_PAYLOAD + 1, MAX_PAYLOAD * 2]) {
      cases.push({
        rule: 'RFC 6455 7.4.1',
        title: `${size} bytes, opcode ${opcode}: more than maxPayload`,
        segments: [frame(opcode, Buffer.alloc(size, 'x')), AFTER],
        outcome: 1009,
        messages: [],
      });
    }
    cases.push(
      {
        rule: 'RFC 6455 7.4.1',
        title: `fragments that are maxPayload together, opcode ${opcode}`,
        segments: fragments(opcode, Buffer.alloc(MAX_PAYLOAD, 'x'), [1, MAX_PAYLOAD - 1]),
        outcome: 'open',
      },
      {
        rule: 'RFC 6455 7.4.1',
        title: `fragments that are more than maxPayload together, opcode ${opcode}`,
        segments: fragments(opcode, Buffer.alloc(MAX_PAYLOAD + 1, 'x'), [MAX_PAYLOAD]),
        outcome: 1009,
        messages: [],
      },
      {
        rule: 'RFC 6455 7.4.1',
        title: `more than maxPayload announced, opcode ${opcode}, and nothing of it sent`,
        segments: [frame(opcode, '', { declared: BigInt(MAX_PAYLOAD + 1) })],
        outcome: 1009,
        messages: [],
      },
    );
  }
  for (const size of [0, 1, 125]) {
    for (const lengthBits of [16, 64] as const) {
      // The RFC wants the shortest; the platform reads any.
      cases.push({
        rule,
        title: `${size} bytes with a length field of ${lengthBits} bits`,
        segments: [frame(TEXT, 'x'.repeat(size), { lengthBits }), AFTER],
        outcome: 'open',
      });
      for (const opcode of [CLOSE, PING, PONG]) {
        cases.push({
          rule: 'RFC 6455 5.5',
          title: `control frame ${opcode} of ${size} bytes with a length field of ${lengthBits} bits`,
          segments: [frame(opcode, 'x'.repeat(size), { lengthBits })],
          outcome: 1002,
          messages: [],
        });
      }
    }
  }
  cases.push(
    {
      rule,
      title: '65535 bytes with a length field of 64 bits',
      segments: [frame(BINARY, Buffer.alloc(65_535, 1), { lengthBits: 64 }), AFTER],
      outcome: 'open',
    },
    ...[1n << 63n, (1n << 64n) - 1n, (1n << 63n) + 5n, 1n << 53n].map((declared) => ({
      rule,
      title: `a length of ${declared}: no length that can be`,
      segments: [frame(BINARY, 'hello', { declared })],
      outcome: 1009,
      messages: [],
    })),
    ...[(1n << 53n) - 1n, 1n << 32n, 1n << 31n].map((declared) => ({
      rule: 'RFC 6455 7.4.1',
      title: `a length of ${declared}: more than maxPayload`,
      segments: [frame(BINARY, 'hello', { declared })],
      outcome: 1009,
      messages: [],
    })),
  );
  const whole = frame(TEXT, 'x'.repeat(200));
  for (const size of [1, 2, 3, 4, 5, 7, 8, 9, 100, whole.length - 1]) {
    cases.push({
      rule,
      title: `the connection ends after ${size} bytes of a frame of ${whole.length}`,
      segments: [whole.subarray(0, size)],
      outcome: 'ended',
      messages: [],
      last: 'fin',
    });
  }
  return cases;
}

function split(bytes: Buffer, offsets: readonly number[]): Buffer[] {
  const ends = [...offsets.filter((offset) => offset < bytes.length), bytes.length];
  return ends.map((end, i) => bytes.subarray(ends[i - 1] ?? 0, end));
}

/** Random valid and invalid sequences of frames; the seed is in each title. */
function random(): FrameCase[] {
  return Array.from({ length: 120 }, (_, i) => {
    const seed = 6_455_000 + i;
    const chance = new SeededRandom(seed);
    const segments = Array.from({ length: 1 + chance.below(6) }, () => {
      const bytes = frame(
        chance.pick([0, 1, 1, 2, 8, 9, 10, chance.below(16)]),
        chance.bytes(chance.below(20)),
        {
          fin: chance.chance(0.75),
          rsv: chance.chance(0.1) ? chance.below(8) : 0,
        },
      );
      return chance.chance(0.15) ? chance.mutate(bytes) : bytes;
    });
    return { seed, segments };
  }).map(({ seed, segments }) => ({
    rule: 'RFC 6455 5',
    title: `random frames, seed ${seed}`,
    segments,
    outcome: 'any' as const,
    last: 'fin' as const,
  }));
}

testFrameCases('fragmentation', sides, fragmentation());
testFrameCases('reserved bits and opcodes', sides, reserved());
testFrameCases('masking', sides, masking());
testFrameCases('payload lengths', sides, lengths());
testFrameCases('random frames', sides, random());
