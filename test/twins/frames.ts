/** The key of every frame: traces are the same in every run. */
const MASK = [0x12, 0x34, 0x56, 0x78] as const;

/** A frame as clients send it: masked, of any length; not final if there is more of its message to come. */
export function clientFrame(opcode: number, payload: Buffer | string = '', isFinal = true): Buffer {
  const bytes = Buffer.from(payload);
  const long = bytes.length > 65_535 ? 127 : bytes.length > 125 ? 126 : undefined;
  const length = Buffer.alloc(long === 127 ? 8 : long === 126 ? 2 : 0);
  if (long === 127) length.writeBigUInt64BE(BigInt(bytes.length));
  if (long === 126) length.writeUInt16BE(bytes.length);
  const masked = Buffer.from(bytes.map((byte, i) => byte ^ (MASK[i % 4] as number)));
  const head = Buffer.from([(isFinal ? 0x80 : 0) | opcode, 0x80 | (long ?? bytes.length)]);
  return Buffer.concat([head, length, Buffer.from(MASK), masked]);
}

/** A message for a handler, as a frame. */
export function message(event: string, data?: unknown): Buffer {
  return clientFrame(1, JSON.stringify({ event, data }));
}

export function closeFrame(code: number, reason = ''): Buffer {
  const head = Buffer.alloc(2);
  head.writeUInt16BE(code);
  return clientFrame(8, Buffer.concat([head, Buffer.from(reason)]));
}
