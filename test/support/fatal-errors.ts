import { expect, onTestFinished } from 'vitest';

/**
 * Counts what would have ended a process that has no handler for it, and fails the test if there was any.
 * Call it first.
 */
export function watchForFatalErrors(): { readonly seen: readonly unknown[] } {
  const seen: unknown[] = [];
  const note = (error: unknown) => void seen.push(error);
  process.on('uncaughtException', note);
  process.on('unhandledRejection', note);
  onTestFinished(async () => {
    // A rejection counts as unhandled only when the microtasks of its turn are done.
    await new Promise((resolve) => setTimeout(resolve, 20));
    process.off('uncaughtException', note);
    process.off('unhandledRejection', note);
    expect(seen).toEqual([]);
  });
  return { seen };
}
