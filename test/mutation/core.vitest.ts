import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/{unit,scenarios,properties}/**/*.test.ts'],
    isolate: false,
    // A run for each mutant: what ten random histories do not find, a test of its own should.
    env: { HISTORIES: '10' },
  },
});
