import { type FrameCase, shown, testFrameCases, useSides } from './support/frame-case.js';
import { CONTINUATION, fragments, frame, PING, TEXT } from './support/wire.js';

const sides = useSides();

const INVALID: readonly [string, string][] = [
  ['a continuation byte alone', '80'],
  ['the last continuation byte alone', 'bf'],
  ['two continuation bytes', '80bf'],
  ['overlong, 2 bytes, U+0000', 'c080'],
  ['overlong, 2 bytes, U+002F', 'c0af'],
  ['overlong, 2 bytes, U+007F', 'c1bf'],
  ['overlong, 3 bytes, U+0000', 'e08080'],
  ['overlong, 3 bytes, U+002F', 'e080af'],
  ['overlong, 3 bytes, U+07FF', 'e09fbf'],
  ['overlong, 4 bytes, U+0000', 'f0808080'],
  ['overlong, 4 bytes, U+FFFF', 'f08fbfbf'],
  ['the first surrogate', 'eda080'],
  ['the last high surrogate', 'edafbf'],
  ['the first low surrogate', 'edb080'],
  ['the last surrogate', 'edbfbf'],
  ['a surrogate pair', 'eda080edb080'],
  ['U+110000', 'f4908080'],
  ['U+13FFFF', 'f4bfbfbf'],
  ['U+140000', 'f5808080'],
  ['U+1FFFFF', 'f7bfbfbf'],
  ['5 bytes', 'f888808080'],
  ['6 bytes', 'fc8480808080'],
  ['FE', 'fe'],
  ['FF', 'ff'],
  ['2 bytes, the second missing', 'c3'],
  ['2 bytes, the second an ASCII character', 'c328'],
  ['3 bytes, two missing', 'e2'],
  ['3 bytes, the third missing', 'e282'],
  ['3 bytes, the second an ASCII character', 'e228a1'],
  ['3 bytes, the third an ASCII character', 'e28228'],
  ['4 bytes, three missing', 'f0'],
  ['4 bytes, two missing', 'f09f'],
  ['4 bytes, the fourth missing', 'f09f98'],
  ['4 bytes, the second an ASCII character', 'f0289880'],
  ['4 bytes, the fourth an ASCII character', 'f09f9828'],
  ['4 bytes, then its last byte twice', 'f09f988080'],
];

const VALID: readonly [string, string][] = [
  ['U+0000', '00'],
  ['U+007F', '7f'],
  ['U+0080', 'c280'],
  ['U+07FF', 'dfbf'],
  ['U+0800', 'e0a080'],
  ['U+0FFF', 'e0bfbf'],
  ['U+1000', 'e18080'],
  ['U+CFFF', 'ecbfbf'],
  ['U+D7FF, the last before the surrogates', 'ed9fbf'],
  ['U+E000, the first after the surrogates', 'ee8080'],
  ['U+FEFF, a byte order mark', 'efbbbf'],
  ['U+FFFD', 'efbfbd'],
  ['U+FFFE, a noncharacter', 'efbfbe'],
  ['U+FFFF, a noncharacter', 'efbfbf'],
  ['U+10000', 'f0908080'],
  ['U+1F600', 'f09f9880'],
  ['U+3FFFF', 'f0bfbfbf'],
  ['U+40000', 'f1808080'],
  ['U+FFFFF', 'f3bfbfbf'],
  ['U+100000', 'f4808080'],
  ['U+10FFFF', 'f48fbfbf'],
];

/** Of all lengths of sequences. */
const MIXED = Buffer.from('κa€😀ßz');

const rule = 'RFC 6455 8.1';

function bytes(digits: string): Buffer {
  return Buffer.from(digits, 'hex');
}

/** One segment for each byte. */
function byteByByte(data: Buffer): Buffer[] {
  return Array.from({ length: data.length }, (_, i) => data.subarray(i, i + 1));
}

function invalid(title: string, segments: readonly Buffer[]): FrameCase {
  return { rule, title, segments, outcome: 1007, messages: [] };
}

function valid(title: string, segments: readonly Buffer[], text: Buffer): FrameCase {
  return { rule, title, segments, outcome: 'open', messages: [shown(text, false)] };
}

/** At the beginning, at the end, and at every place where a sequence of bytes may begin between. */
function places(): number[] {
  return Array.from({ length: MIXED.length + 1 }, (_, i) => i).filter(
    (i) => i === MIXED.length || ((MIXED[i] as number) & 0xc0) !== 0x80,
  );
}

function invalidText(): FrameCase[] {
  const cases: FrameCase[] = [];
  for (const [name, digits] of INVALID) {
    const wrong = bytes(digits);
    for (const at of places()) {
      const text = Buffer.concat([MIXED.subarray(0, at), wrong, MIXED.subarray(at)]);
      cases.push(invalid(`${name} at byte ${at}`, [frame(TEXT, text), frame(TEXT, 'after')]));
    }
    cases.push(
      invalid(`${name}, in a segment for each byte`, byteByByte(frame(TEXT, wrong))),
      invalid(`${name}, far behind valid text`, [
        frame(TEXT, Buffer.concat([Buffer.alloc(65_530, 'x'), wrong, Buffer.from('end')])),
      ]),
      invalid(`${name}, a fragment for each byte`, [
        Buffer.concat(
          fragments(
            TEXT,
            wrong,
            Array.from({ length: wrong.length - 1 }, (_, i) => i + 1),
          ),
        ),
      ]),
      invalid(`${name}, with an empty last fragment`, [
        frame(TEXT, wrong, { fin: false }),
        frame(PING, 'x'),
        frame(CONTINUATION),
      ]),
      invalid(`${name}, after a valid message in one segment`, [
        Buffer.concat([frame(TEXT, wrong, { fin: false }), frame(CONTINUATION, 'x'), frame(TEXT, 'after')]),
      ]),
    );
  }
  return cases;
}

function truncatedText(): FrameCase[] {
  const cases: FrameCase[] = [];
  for (let size = 1; size < MIXED.length; size++) {
    const isWhole = places().includes(size);
    const text = MIXED.subarray(0, size);
    for (const before of [0, 17, 200]) {
      const whole = Buffer.concat([Buffer.alloc(before, 'x'), text]);
      const title = `text that ends after byte ${size}, behind ${before} bytes`;
      cases.push(isWhole ? valid(title, [frame(TEXT, whole)], whole) : invalid(title, [frame(TEXT, whole)]));
    }
  }
  return cases;
}

function validText(): FrameCase[] {
  const cases: FrameCase[] = [];
  for (const [name, digits] of VALID) {
    const character = bytes(digits);
    const text = Buffer.concat([Buffer.from('<'), character, Buffer.from('>')]);
    const far = Buffer.concat([Buffer.alloc(65_530, 'x'), character]);
    cases.push(
      valid(name, [frame(TEXT, character)], character),
      valid(`${name}, in a segment for each byte`, byteByByte(frame(TEXT, text)), text),
      valid(`${name} behind 65530 bytes`, [frame(TEXT, far)], far),
    );
    for (let at = 1; at < text.length; at++) {
      cases.push(valid(`${name}, split over fragments at byte ${at}`, fragments(TEXT, text, [at]), text));
    }
  }
  for (let at = 0; at <= MIXED.length; at++) {
    cases.push(
      valid(`mixed text split over fragments at byte ${at}`, fragments(TEXT, MIXED, [at]), MIXED),
      valid(
        `mixed text split over fragments at byte ${at}, a ping between`,
        [
          Buffer.concat([
            frame(TEXT, MIXED.subarray(0, at), { fin: false }),
            frame(PING),
            frame(CONTINUATION, MIXED.subarray(at)),
          ]),
        ],
        MIXED,
      ),
    );
  }
  return cases;
}

testFrameCases('invalid UTF-8 in a text message', sides, invalidText());
testFrameCases('truncated UTF-8 in a text message', sides, truncatedText());
testFrameCases('valid UTF-8 in a text message', sides, validText());
