import { randomBytes } from 'node:crypto';
import { connect, type Socket } from 'node:net';
import { handshake } from './raw-socket.js';

const PONG_OPCODE = 0xa;
const PING_OPCODE = 0x9;
const TEXT_OPCODE = 0x1;

/** A frame as clients send it: final, masked, of any length. */
export function clientFrame(opcode: number, payload: Buffer | string = ''): Buffer {
  const bytes = Buffer.from(payload);
  const long = bytes.length > 65_535 ? 127 : bytes.length > 125 ? 126 : undefined;
  const length = Buffer.alloc(long === 127 ? 8 : long === 126 ? 2 : 0);
  if (long === 127) length.writeBigUInt64BE(BigInt(bytes.length));
  if (long === 126) length.writeUInt16BE(bytes.length);
  const mask = randomBytes(4);
  const masked = Buffer.from(bytes.map((byte, i) => byte ^ (mask[i % 4] as number)));
  return Buffer.concat([Buffer.from([0x80 | opcode, 0x80 | (long ?? bytes.length)]), length, mask, masked]);
}

/**
 * A WebSocket client that takes bytes out of the kernel one at a time, as many as it is allowed to: what it does not
 * take stays where it is, and the server's output stands still.
 */
export class RawPeer {
  /** Bytes that it may still read. */
  private allowed = Number.POSITIVE_INFINITY;
  private head = '';
  private frame: number[] = [];
  readonly opcodes: number[] = [];
  bytes = 0;
  closedAt: number | undefined;
  /** Of the close frame, if one was read. */
  closeCode: number | undefined;
  private readonly socket: Socket;

  constructor(url: string) {
    const { hostname, port, pathname, search, host } = new URL(url);
    this.socket = connect({
      port: Number(port),
      host: hostname,
      onread: {
        buffer: Buffer.alloc(1),
        callback: (_count: number, [byte]: Uint8Array) => this.take(byte as number),
      },
    });
    this.socket.on('error', () => {});
    this.socket.on('close', () => {
      this.closedAt = performance.now();
    });
    this.socket.write(handshake(`${pathname}${search}`, { Host: host }));
  }

  get isClosed(): boolean {
    return this.closedAt !== undefined;
  }

  /** From now on it reads no more than this, until it is allowed more. */
  allow(bytes: number): void {
    this.allowed = bytes;
    if (bytes > 0) this.socket.resume();
    else this.socket.pause();
  }

  send(event: string, data: unknown): void {
    this.socket.write(clientFrame(TEXT_OPCODE, JSON.stringify({ event, data })));
  }

  pong(): void {
    this.socket.write(clientFrame(PONG_OPCODE));
  }

  destroy(): void {
    this.socket.destroy();
  }

  /** Whether to read on. */
  private take(byte: number): boolean {
    this.bytes++;
    if (this.head.endsWith('\r\n\r\n')) this.takeOfFrame(byte);
    else this.head += String.fromCharCode(byte);
    this.allowed--;
    return this.allowed > 0;
  }

  private takeOfFrame(byte: number): void {
    this.frame.push(byte);
    const frame = Buffer.from(this.frame);
    const short = (frame[1] ?? 0) & 0x7f;
    const start = short === 126 ? 4 : short === 127 ? 10 : 2;
    if (frame.length < start) return;
    const length =
      short === 126 ? frame.readUInt16BE(2) : short === 127 ? Number(frame.readBigUInt64BE(2)) : short;
    if (frame.length < start + length) return;
    this.frame = [];
    const opcode = (frame[0] as number) & 0x0f;
    this.opcodes.push(opcode);
    if (opcode === PING_OPCODE) this.pong();
    if (opcode === 8 && length >= 2) this.closeCode = frame.readUInt16BE(start);
  }
}
