import { connect } from 'node:net';
import { CLOSE, handshake, PACKET_CONNECT, PACKET_PONG, PONG } from './frames.mjs';

/** Where everything that comes in is put: it is looked at at once, and never kept. */
const INBOX = Buffer.allocUnsafe(256 * 1024);
const END_OF_HEAD = Buffer.from('\r\n\r\n');
const NONE = Buffer.alloc(0);
/** The ports of one address would not last for all connections of a run. */
const ADDRESSES = 16;
let opened = 0;

const [OPEN_PACKET, PING_PACKET, MESSAGE_PACKET, CONNECTED] = [...Buffer.from('0240')];

/**
 * One client on a plain socket. Looks at no more of a frame than tells it apart from others, so that it costs less
 * than the server that it measures.
 */
export class Peer {
  /** Frames with application data that came in, and pings. */
  replies = 0;
  pings = 0;
  /** False: it is frozen. What comes in is read, and nobody answers. */
  answers = true;
  isOpen = false;
  /** The server said goodbye. */
  isClosing = false;
  isClosed = false;
  openedAfterMs = 0;
  onReply = undefined;
  frozenAt = undefined;
  /** The server has given it up: said goodbye, or closed. */
  endedAt = undefined;
  #freezesAfterPong = false;
  #frozen;
  #ended;
  freezing = new Promise((resolve) => {
    this.#frozen = resolve;
  });
  ending = new Promise((resolve) => {
    this.#ended = resolve;
  });
  #rest = NONE;
  #hasHead = false;
  #settle;

  constructor({ port, dialect, user }) {
    this.dialect = dialect;
    const startedAt = performance.now();
    this.socket = connect({
      host: '127.0.0.1',
      port,
      localAddress: `127.0.0.${2 + (opened++ % ADDRESSES)}`,
      noDelay: true,
      onread: { buffer: INBOX, callback: (length) => this.#read(INBOX.subarray(0, length)) },
    });
    this.socket.write(handshake(dialect.path(user), port));
    this.socket.on('error', () => {});
    /** Resolves with whether it came in. */
    this.opening = new Promise((resolve) => {
      this.#settle = (isOpen) => {
        this.isOpen = isOpen;
        this.openedAfterMs = performance.now() - startedAt;
        resolve(isOpen);
      };
    });
    this.closing = new Promise((resolve) => {
      this.socket.once('close', () => {
        this.isClosed = true;
        this.#settle(false);
        this.#end();
        resolve();
      });
    });
  }

  send(bytes) {
    this.socket.write(bytes);
  }

  /** The closing handshake; resolves when the socket is gone. */
  close() {
    if (!this.isClosed) this.socket.write(CLOSE);
    return this.closing;
  }

  freeze(afterPong = false) {
    if (afterPong) {
      this.#freezesAfterPong = true;
      return;
    }
    this.answers = false;
    this.frozenAt = performance.now();
    this.#frozen();
  }

  #end() {
    this.endedAt ??= performance.now();
    this.#ended();
  }

  #pong(bytes) {
    this.pings++;
    if (this.answers) this.socket.write(bytes);
    if (this.#freezesAfterPong && this.answers) this.freeze();
  }

  #read(bytes) {
    let chunk = bytes;
    if (this.#rest.length > 0) {
      chunk = Buffer.concat([this.#rest, bytes]);
      this.#rest = NONE;
    }
    const end = this.#hasHead ? this.#readFrames(chunk, 0) : this.#readHead(chunk);
    // The inbox belongs to the next peer: what is not a whole frame yet has to be copied out.
    if (end < chunk.length) this.#rest = Buffer.from(chunk.subarray(end));
  }

  #readHead(chunk) {
    const end = chunk.indexOf(END_OF_HEAD);
    if (end < 0) return 0;
    this.#hasHead = true;
    const isAccepted = chunk.toString('latin1', 9, 12) === '101';
    if (!isAccepted) {
      this.socket.destroy();
      return chunk.length;
    }
    if (!this.dialect.isPacketed) this.#settle(true);
    return this.#readFrames(chunk, end + END_OF_HEAD.length);
  }

  #readFrames(chunk, from) {
    const { length } = chunk;
    let at = from;
    while (at + 2 <= length) {
      const short = chunk[at + 1];
      let payloadAt = at + 2;
      let size = short;
      if (short === 126) {
        if (at + 4 > length) break;
        size = chunk.readUInt16BE(at + 2);
        payloadAt = at + 4;
      }
      if (short === 127) throw new Error('The server sent a frame of 64 KiB or more');
      if (payloadAt + size > length) break;
      this.#frame(chunk[at] & 0x0f, chunk, payloadAt);
      at = payloadAt + size;
    }
    return at;
  }

  #frame(opcode, chunk, payloadAt) {
    if (opcode === 9) {
      this.#pong(PONG);
    } else if (opcode === 8) {
      this.isClosing = true;
      this.#end();
      if (this.answers) this.socket.end(CLOSE);
    } else if (this.dialect.isPacketed) {
      this.#packet(chunk[payloadAt], chunk[payloadAt + 1]);
    } else {
      this.replies++;
      this.onReply?.();
    }
  }

  /** Of engine.io: open, ping or message; a message of socket.io: connected, or an event. */
  #packet(type, kind) {
    if (type === OPEN_PACKET) {
      this.socket.write(PACKET_CONNECT);
    } else if (type === PING_PACKET) {
      this.#pong(PACKET_PONG);
    } else if (type === MESSAGE_PACKET && kind === CONNECTED) {
      this.#settle(true);
    } else if (type === MESSAGE_PACKET) {
      this.replies++;
      this.onReply?.();
    }
  }
}
