/** A final frame with text in it, of RFC 6455. */
const FIN_AND_TEXT = 0x81;
const LENGTH_OF_16_BITS = 126;
const LENGTH_OF_64_BITS = 127;
/** The last message is kept to be sent again, but for one that is worth more than the time. */
const MOST_KEPT_BYTES = 65_536;

let lastText: string | undefined;
let lastFrame: Buffer | undefined;

/**
 * The text as a server sends it, whole and unmasked, in one piece of memory: one write, where a header apart from its
 * payload takes two. What is sent to many is made once, and its memory shared by all that have still to take it.
 */
export function textFrame(text: string): Buffer {
  if (text === lastText) return lastFrame as Buffer;
  const length = Buffer.byteLength(text);
  const frame = framed(text, length);
  if (length <= MOST_KEPT_BYTES) {
    lastText = text;
    lastFrame = frame;
  }
  return frame;
}

function framed(text: string, length: number): Buffer {
  const offset = length < LENGTH_OF_16_BITS ? 2 : length < 65_536 ? 4 : 10;
  const frame = Buffer.allocUnsafe(offset + length);
  frame[0] = FIN_AND_TEXT;
  if (offset === 2) {
    frame[1] = length;
  } else if (offset === 4) {
    frame[1] = LENGTH_OF_16_BITS;
    frame.writeUInt16BE(length, 2);
  } else {
    frame[1] = LENGTH_OF_64_BITS;
    frame.writeUIntBE(length, 4, 6);
    frame.writeUInt16BE(0, 2);
  }
  frame.write(text, offset);
  return frame;
}
