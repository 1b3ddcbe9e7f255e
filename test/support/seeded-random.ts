/** Random values that come again with the same seed. */
export class SeededRandom {
  private state: number;

  constructor(readonly seed: number) {
    this.state = seed >>> 0;
  }

  /** A generator of its own for one purpose: more cases of one kind change nothing for the others. */
  fork(name: string): SeededRandom {
    let hash = this.seed;
    for (const character of name) hash = Math.imul(hash ^ character.charCodeAt(0), 0x01000193);
    return new SeededRandom(hash);
  }

  /** From 0, below 1. Mulberry32: https://gist.github.com/tommyettinger/46a874533244883189143505d203312c */
  next(): number {
    this.state = (this.state + 0x6d2b79f5) >>> 0;
    let t = this.state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }

  /** A whole number from 0, below `end`. */
  below(end: number): number {
    return Math.floor(this.next() * end);
  }

  chance(share: number): boolean {
    return this.next() < share;
  }

  pick<T>(choices: readonly T[]): T {
    return choices[this.below(choices.length)] as T;
  }

  bytes(length: number): Buffer {
    return Buffer.from(Array.from({ length }, () => this.below(256)));
  }

  /** A text of odd characters. */
  text(mostCharacters = 12): string {
    return Array.from({ length: this.below(mostCharacters + 1) }, () => this.pick(ODD_TEXTS)).join('');
  }

  /** Some bytes of it changed, doubled, left out, or put somewhere else. */
  mutate(bytes: Buffer): Buffer {
    let mutated = Buffer.from(bytes);
    for (let i = 1 + this.below(4); i > 0; i--) {
      const at = this.below(mutated.length + 1);
      const to = Math.min(mutated.length, at + this.below(8));
      const [before, within, after] = [
        mutated.subarray(0, at),
        mutated.subarray(at, to),
        mutated.subarray(to),
      ];
      const change = this.pick([
        () => [before, this.bytes(within.length), after],
        () => [before, within, within, after],
        () => [before, after],
        () => [before, this.bytes(1 + this.below(6)), within, after],
        () => [after, before],
        () => [before, Buffer.from(this.text(3)), after],
        () => [before, Buffer.from([(mutated[at] ?? 0) ^ (1 << this.below(8))]), mutated.subarray(at + 1)],
      ]);
      mutated = Buffer.concat(change());
    }
    return mutated;
  }
}

const ODD_TEXTS: readonly string[] = [
  ...'abcABC019 -_.,:;/\\\'"`%&=?#@!*()[]{}<>|~^$+',
  '\r\n',
  '\n',
  '\t',
  '\0',
  '\u001b[2J',
  '\u007f',
  '\u0085',
  '\u2028',
  '\u202e',
  '\ufeff',
  '\ud800',
  '\u{1f600}',
  'é',
  '日本',
  '[Nest] 1  - 01/01/2026, 0:00:00 AM     LOG [Forged] line',
  '    at forged (file.js:1:1)',
  '__proto__',
  'constructor',
  '%0d%0a',
  '%00',
  '../',
  'Infinity',
  'NaN',
  '1e999',
  '-1',
  '0x10',
  '9'.repeat(20),
];
