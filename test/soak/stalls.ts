/** When somebody's event loop stood still. */
export type Stall = readonly [from: number, to: number];

/** Whose time it was: the part of a wait in which a process that is needed for the answer did not run. */
export class Stalls {
  private noted: Stall[] = [];

  note(stalls: readonly Stall[]): void {
    this.noted.push(...stalls);
  }

  /** Forgets what ended before. */
  forget(before: number): void {
    this.noted = this.noted.filter(([, to]) => to >= before);
  }

  /** Milliseconds of `[from, to]` in which any of them stood still. */
  within(from: number, to: number): number {
    let covered = from;
    let sum = 0;
    for (const [begin, end] of [...this.noted].sort((a, b) => a[0] - b[0])) {
      const [least, most] = [Math.max(begin, covered), Math.min(end, to)];
      if (most <= least) continue;
      sum += most - least;
      covered = most;
    }
    return sum;
  }

  /** Whether one of at least `ms` touched `[from, to]`. */
  hasOneOf(ms: number, from: number, to: number): boolean {
    return this.noted.some(([begin, end]) => end - begin >= ms && begin <= to && end >= from);
  }
}
