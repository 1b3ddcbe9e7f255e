/** Opcodes of https://www.rfc-editor.org/rfc/rfc6455#section-5.2 */
export const CONTINUATION = 0x0;
export const TEXT = 0x1;
export const BINARY = 0x2;
export const CLOSE = 0x8;
export const PING = 0x9;
export const PONG = 0xa;

/** The masking key of the examples in RFC 6455, section 5.7: a fixed one, so that a run can be repeated. */
const MASK = Buffer.from([0x37, 0xfa, 0x21, 0x3d]);

export interface FrameOptions {
  /** @default true */
  readonly fin?: boolean;
  /** Reserved bits as a number from 0 to 7: 4 is RSV1. @default 0 */
  readonly rsv?: number;
  /** undefined: the frame is not masked. */
  readonly mask?: Buffer | undefined;
  /** Bits of the length field. @default the shortest that fits */
  readonly lengthBits?: 7 | 16 | 64;
  /** What the length field says, where that is not the length of the payload. */
  readonly declared?: bigint;
}

/** A frame as a client sends it, or one with any of its fields wrong. */
export function frame(
  opcode: number,
  payload: Buffer | string = '',
  options: FrameOptions = {},
): Buffer<ArrayBuffer> {
  const bytes = Buffer.from(payload as string);
  const mask = 'mask' in options ? options.mask : MASK;
  const length = options.declared ?? BigInt(bytes.length);
  const bits = options.lengthBits ?? (length < 126n ? 7 : length < 65_536n ? 16 : 64);
  const field = Buffer.alloc(bits === 7 ? 0 : bits / 8);
  if (bits === 16) field.writeUInt16BE(Number(length));
  if (bits === 64) field.writeBigUInt64BE(length);
  const short = bits === 7 ? Number(length) : bits === 16 ? 126 : 127;
  const first = (options.fin === false ? 0 : 0x80) | ((options.rsv ?? 0) << 4) | opcode;
  const head = Buffer.from([first, (mask ? 0x80 : 0) | short]);
  return Buffer.concat([head, field, mask ?? Buffer.alloc(0), mask ? masked(bytes, mask) : bytes]);
}

function masked(bytes: Buffer, mask: Buffer): Buffer {
  const result = Buffer.from(bytes);
  for (let i = 0; i < result.length; i++) result[i] = (result[i] as number) ^ (mask[i % 4] as number);
  return result;
}

/** The frames of one message, split at the given offsets of its payload. */
export function fragments(opcode: number, payload: Buffer | string, offsets: readonly number[]): Buffer[] {
  const bytes = Buffer.from(payload as string);
  const ends = [...offsets, bytes.length];
  return ends.map((end, i) =>
    frame(i === 0 ? opcode : CONTINUATION, bytes.subarray(ends[i - 1] ?? 0, end), {
      fin: i === ends.length - 1,
    }),
  );
}

/** The payload of a close frame: a code and, after it, a reason. */
export function closePayload(code: number, reason: Buffer | string = ''): Buffer {
  return Buffer.concat([Buffer.from([code >> 8, code & 0xff]), Buffer.from(reason as string)]);
}

export interface ReceivedFrame {
  readonly bytes: Buffer;
  readonly fin: boolean;
  readonly rsv: number;
  readonly opcode: number;
  readonly isMasked: boolean;
  readonly payload: Buffer;
}

/** The first frame in the bytes; undefined: it is not complete yet. */
export function readFrame(bytes: Buffer): ReceivedFrame | undefined {
  if (bytes.length < 2) return undefined;
  const first = bytes[0] as number;
  const isMasked = ((bytes[1] as number) & 0x80) !== 0;
  const short = (bytes[1] as number) & 0x7f;
  const lengthBytes = short === 126 ? 2 : short === 127 ? 8 : 0;
  const start = 2 + lengthBytes + (isMasked ? 4 : 0);
  if (bytes.length < start) return undefined;
  const length =
    short === 126 ? bytes.readUInt16BE(2) : short === 127 ? Number(bytes.readBigUInt64BE(2)) : short;
  if (bytes.length < start + length) return undefined;
  const raw = bytes.subarray(start, start + length);
  return {
    bytes: bytes.subarray(0, start + length),
    fin: (first & 0x80) !== 0,
    rsv: (first >> 4) & 7,
    opcode: first & 0x0f,
    isMasked,
    payload: isMasked ? masked(raw, bytes.subarray(start - 4, start)) : raw,
  };
}

const NAMES: Readonly<Record<number, string>> = {
  [CONTINUATION]: 'continuation',
  [TEXT]: 'text',
  [BINARY]: 'binary',
  [CLOSE]: 'close',
  [PING]: 'ping',
  [PONG]: 'pong',
};

/** One line for each frame, with its bytes: two lists are equal only where the bytes are. */
export function describeFrame({ bytes, fin, rsv, opcode, isMasked, payload }: ReceivedFrame): string {
  const flags = [fin ? 'fin' : '', rsv ? `rsv${rsv}` : '', isMasked ? 'masked' : '']
    .filter(Boolean)
    .join(' ');
  const name = NAMES[opcode] ?? `opcode ${opcode}`;
  const code = opcode === CLOSE && payload.length >= 2 ? ` ${payload.readUInt16BE(0)}` : '';
  // A mask is random: it is not compared.
  return `${name}${code} ${flags} ${payload.length} bytes: ${hex(isMasked ? payload : bytes)}`;
}

/** Bytes as hexadecimal digits; of many, both ends and a checksum. */
export function hex(bytes: Buffer): string {
  if (bytes.length <= 160) return bytes.toString('hex');
  let sum = 0;
  for (const byte of bytes) sum = (Math.imul(sum, 31) + byte) >>> 0;
  return `${bytes.subarray(0, 24).toString('hex')}..${bytes.subarray(-8).toString('hex')} (sum ${sum.toString(16)})`;
}
