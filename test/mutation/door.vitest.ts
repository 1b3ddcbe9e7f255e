import { defineConfig } from 'vitest/config';
import { BaseSequencer, type TestSpecification } from 'vitest/node';

/** What needs no socket is quick: a mutant that it finds need not wait for the others. */
class QuickFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const quick = files.filter(({ moduleId }) => moduleId.includes('/unit/'));
    return [...quick, ...files.filter((file) => !quick.includes(file))];
  }
}

export default defineConfig({
  test: {
    // End-to-end tests whose application runs in this process: a child process would run the code as it was built. Those
    // of the door's answers and of liveness take long, and add nothing here: the other run breaks what they test.
    include: [
      'test/unit/{door,managed-websocket}.test.ts',
      'test/e2e/{door-handshake,door-platform,hooks,hooks-that-hang,hostile-strangers,messages,module-options,sessions}.e2e.test.ts',
    ],
    isolate: false,
    sequence: { sequencer: QuickFirst },
    testTimeout: 10_000,
    // They measure time; what fails by chance is not to count as a mutant that was found.
    retry: 1,
  },
});
