/**
 * What both runs of the mutation tester have in common.
 * @type {import('@stryker-mutator/api/core').PartialStrykerOptions}
 */
export const shared = {
  testRunner: 'vitest',
  coverageAnalysis: 'perTest',
  concurrency: 2,
  // A mutant may well make an endless loop; the runner is then ended, and starting it anew takes seconds.
  timeoutMS: 8_000,
  timeoutFactor: 2,
  // It would rewrite the paths in tsconfig.json through the compiler's programming interface, which TypeScript 7
  // does not have. Ours names no path outside the project, so there is nothing to rewrite.
  tsconfigFile: 'none',
  ignorePatterns: ['bench', 'docs', 'reports', 'coverage', '.stryker-*'],
  plugins: ['@stryker-mutator/vitest-runner', './test/mutation/error-texts.mjs'],
  ignorers: ['error-texts'],
  reporters: ['progress-append-only', 'clear-text', 'html', 'json'],
  clearTextReporter: { logTests: false, reportTests: false },
  thresholds: { high: 95, low: 90, break: 90 },
};

/**
 * The report, and all that a run leaves behind, in places of its own.
 * @param {string} name
 * @returns {import('@stryker-mutator/api/core').PartialStrykerOptions}
 */
export function placesOf(name) {
  return {
    tempDirName: `.stryker-${name}`,
    htmlReporter: { fileName: `reports/mutation/${name}.html` },
    jsonReporter: { fileName: `reports/mutation/${name}.json` },
    incrementalFile: `reports/mutation/${name}.incremental.json`,
  };
}
