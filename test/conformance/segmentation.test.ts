import { constants, deflateRawSync } from 'node:zlib';
import { SeededRandom } from '../support/seeded-random.js';
import { type FrameCase, testFrameCases, useSides } from './support/frame-case.js';
import { BINARY, CLOSE, CONTINUATION, closePayload, frame, PING, PONG, TEXT } from './support/wire.js';

const sides = useSides();

const rule = 'RFC 6455 5.2';

function deflated(text: string): Buffer {
  return deflateRawSync(text, { finishFlush: constants.Z_SYNC_FLUSH }).subarray(0, -4);
}

/** One of each kind of valid traffic. */
const TRAFFIC: readonly Buffer[] = [
  frame(TEXT, 'one'),
  frame(PONG),
  frame(PING),
  frame(PING, 'payload'),
  frame(TEXT, ''),
  frame(PONG, 'payload'),
  frame(BINARY, Buffer.from([0, 255, 128])),
  frame(TEXT, 'κa€', { fin: false }),
  frame(PONG),
  frame(CONTINUATION, '', { fin: false }),
  frame(PING, 'inside'),
  frame(CONTINUATION, '😀ßz'),
  frame(PONG),
  frame(PONG),
  frame(TEXT, 'x'.repeat(126)),
  frame(BINARY, Buffer.alloc(300, 7)),
  frame(TEXT, '{"event":"echo","data":1}'),
  frame(PONG),
];

const COMPRESSED_TRAFFIC: readonly Buffer[] = [
  frame(TEXT, deflated('Hello'), { rsv: 4 }),
  frame(PONG),
  frame(PING, 'a'),
  frame(TEXT, deflated('Hello Hello').subarray(0, 3), { fin: false, rsv: 4 }),
  frame(PONG),
  frame(CONTINUATION, deflated('Hello Hello').subarray(3)),
  frame(TEXT, 'not compressed'),
  frame(PONG),
  frame(BINARY, deflated('x'.repeat(1_000)), { rsv: 4 }),
  frame(PING),
];

function segmentsOf(bytes: Buffer, seed: number): Buffer[] {
  const random = new SeededRandom(seed);
  const most = random.pick([2, 4, 7, 20, 200]);
  const segments: Buffer[] = [];
  for (let at = 0; at < bytes.length; ) {
    const size = 1 + random.below(most);
    segments.push(bytes.subarray(at, at + size));
    at += size;
  }
  return segments;
}

function ways(
  name: string,
  traffic: readonly Buffer[],
  firstSeed: number,
  base: Partial<FrameCase>,
): FrameCase[] {
  const whole = Buffer.concat(traffic);
  const make = (title: string, segments: readonly Buffer[]): FrameCase => ({
    rule,
    title: `${name}: ${title}`,
    segments,
    outcome: 'open',
    ...base,
  });
  const cases = [
    make('each frame in a segment', traffic),
    make('everything in one segment', [whole]),
    make(
      'each byte in a segment',
      Array.from(whole, (byte) => Buffer.from([byte])),
    ),
  ];
  for (let offset = 1; offset < 8; offset++) {
    const pieces: Buffer[] = [];
    for (let at = 0; at < whole.length; at += offset + 1) pieces.push(whole.subarray(at, at + offset + 1));
    cases.push(make(`segments of ${offset + 1} bytes`, pieces));
  }
  for (let seed = firstSeed; seed < firstSeed + 25; seed++) {
    cases.push(make(`random segments, seed ${seed}`, segmentsOf(whole, seed)));
  }
  return cases;
}

const close = frame(CLOSE, closePayload(4000, 'over'));

testFrameCases('segmentation', sides, [
  ...ways('valid traffic', TRAFFIC, 100, {}),
  ...ways('valid traffic and a close', [...TRAFFIC, close, frame(TEXT, 'late')], 200, { outcome: 4000 }),
  ...ways('an error at the end', [...TRAFFIC, frame(TEXT, Buffer.from([0xc0])), frame(TEXT, 'late')], 300, {
    outcome: 1007,
  }),
  ...ways('an error in the middle', [...TRAFFIC.slice(0, 9), frame(BINARY, 'x'), ...TRAFFIC.slice(9)], 400, {
    outcome: 1002,
  }),
  ...ways('compressed traffic', COMPRESSED_TRAFFIC, 500, { path: '/deflate', offer: 'permessage-deflate' }),
  ...ways('compressed traffic and a close', [...COMPRESSED_TRAFFIC, close], 600, {
    path: '/deflate',
    offer: 'permessage-deflate',
    outcome: 4000,
  }),
]);
