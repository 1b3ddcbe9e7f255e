/** Waits for what arrives from outside, and never for ever. */
export class BoundedWait {
  private readonly waiting = new Set<() => void>();

  /** To be called whenever something has changed. */
  wake(): void {
    for (const wake of this.waiting) wake();
    this.waiting.clear();
  }

  /** Rejects with `what` after `waitMs`, or as soon as `isHopeless`. */
  async until(
    isThere: () => boolean,
    waitMs: number,
    what: () => string,
    isHopeless = () => false,
  ): Promise<void> {
    const deadline = performance.now() + waitMs;
    while (!isThere()) {
      const leftMs = deadline - performance.now();
      if (leftMs <= 0 || isHopeless()) throw new Error(`${what()}; waited at most ${waitMs} ms`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, leftMs);
        this.waiting.add(() => {
          clearTimeout(timer);
          resolve();
        });
      });
    }
  }
}
