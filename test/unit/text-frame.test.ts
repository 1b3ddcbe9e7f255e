import { describe, expect, it } from 'vitest';
import * as ws from 'ws';
import { textFrame } from '../../src/admission/text-frame.js';

/** Reads it back as `ws` itself reads a server's frame. */
function readBack(frame: Buffer): string[] {
  const texts: string[] = [];
  // It is exported, and has no types.
  const { Receiver } = ws as unknown as { Receiver: new (options: object) => NodeJS.WritableStream };
  const receiver = new Receiver({
    allowSynchronousEvents: true,
    isServer: false,
  });
  receiver.on('message', (data: Buffer, isBinary: boolean) =>
    texts.push(`${isBinary ? 'binary ' : ''}${data}`),
  );
  receiver.write(frame);
  return texts;
}

describe('textFrame', () => {
  it.each([
    [0, 2],
    [1, 2],
    [125, 2],
    [126, 4],
    [65_535, 4],
    [65_536, 10],
    [200_000, 10],
  ])('of %d bytes is one frame, with a header of %d', (length, header) => {
    const text = 'x'.repeat(length);
    const frame = textFrame(text);
    expect(frame.length).toBe(length + header);
    expect(readBack(frame)).toEqual([text]);
  });

  it('counts bytes, not letters', () => {
    const text = '🐈'.repeat(40);
    expect(readBack(textFrame(text))).toEqual([text]);
  });

  it.each([
    [65_536, true],
    [65_537, false],
  ])('of %d bytes is kept, to be sent again: %s', (length, isKept) => {
    const text = 'y'.repeat(length);
    const first = textFrame(text);
    expect(textFrame(text) === first).toBe(isKept);
    expect(readBack(textFrame('another'))).toEqual(['another']);
    expect(readBack(textFrame(text))).toEqual([text]);
  });
});
