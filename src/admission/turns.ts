/** One thing at a time for each of those that have one, in the order in which they came. */
export class Turns<Owner extends object> {
  /** The end of the last in line. */
  private readonly lines = new Map<Owner, Promise<void>>();

  /** Whether somebody has the turn, or waits for it. */
  isTaken(owner: Owner): boolean {
    return this.lines.has(owner);
  }

  /** Does it when all before are done, whatever came of them. */
  async take<T>(owner: Owner, work: () => Promise<T>): Promise<T> {
    const before = this.lines.get(owner);
    let done = () => {};
    const mine = new Promise<void>((resolve) => {
      done = resolve;
    });
    this.lines.set(owner, mine);
    try {
      if (before) await before;
      return await work();
    } finally {
      if (this.lines.get(owner) === mine) this.lines.delete(owner);
      done();
    }
  }
}
