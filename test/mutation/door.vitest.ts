import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    // Those whose application runs in this process. A child process would run the code as it was built.
    include: ['test/e2e/{door-*,hooks*,hostile-strangers,module-options,sessions}.e2e.test.ts'],
    isolate: false,
    testTimeout: 10_000,
    // They measure time; what fails by chance is not to count as a mutant that was found.
    retry: 1,
  },
});
