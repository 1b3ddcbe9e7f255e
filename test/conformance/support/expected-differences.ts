import { expect } from 'vitest';

/** A difference from the platform that the module makes on purpose. */
export interface ExpectedDifference {
  /** The title of the case that shows it. */
  readonly name: string;
  readonly reason: string;
  /** What the module does instead: each has to match a line of its transcript. */
  readonly module: readonly RegExp[];
}

/** All of them. A row whose case shows no difference any more fails its test. */
export const EXPECTED_DIFFERENCES: readonly ExpectedDifference[] = [];

/**
 * Compares the transcript of the module with the platform's: they are equal, or differ as the table has it.
 * @param about names the rule, and shows both sides
 */
export function expectSame(
  name: string,
  about: string,
  platform: readonly string[],
  module: readonly string[],
): void {
  const difference = EXPECTED_DIFFERENCES.find((row) => row.name === name);
  const both = [about, `platform:\n  ${platform.join('\n  ')}`, `module:\n  ${module.join('\n  ')}`].join(
    '\n',
  );
  if (!difference) {
    expect(module, `${both}\n`).toEqual(platform);
    return;
  }
  expect(module, `no longer differs; remove its row: ${both}\n`).not.toEqual(platform);
  for (const line of difference.module) {
    expect(
      module.some((one) => line.test(one)),
      `${difference.reason}: no line matches ${line}\n${both}`,
    ).toBe(true);
  }
}
