import { defineConfig } from 'vitest/config';
import { BaseSequencer, type TestSpecification } from 'vitest/node';

/** Live through whole histories, and take their time. */
const LONG = /heartbeat(-looks)?\.test|websocket-manager\.factory|due-queue|scenarios|properties/;

/** A mutant that a small test finds need not wait for the long ones: the first failure ends its run. */
class CheapFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const cheap = files.filter(({ moduleId }) => !LONG.test(moduleId));
    return [...cheap, ...files.filter(({ moduleId }) => LONG.test(moduleId))];
  }
}

export default defineConfig({
  test: {
    include: ['test/{unit,scenarios,properties}/**/*.test.ts'],
    // Of the pages, which are not broken.
    exclude: ['test/unit/docs.test.ts'],
    isolate: false,
    sequence: { sequencer: CheapFirst },
    // A run for each mutant: what ten random histories do not find, a test of its own should.
    env: { HISTORIES: '10' },
  },
});
