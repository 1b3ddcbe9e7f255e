import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: 'unit',
          include: ['test/{unit,scenarios,properties}/**/*.test.ts'],
          pool: 'threads',
          isolate: false,
          maxWorkers: 2,
          // Their time is a fake clock's; the machine's says nothing about them.
          testTimeout: 30_000,
        },
      },
      {
        test: {
          name: 'properties',
          include: ['test/properties/**/*.test.ts'],
          pool: 'threads',
          maxWorkers: 2,
          // As many as the contract asks of every build; the quick run lives a hundred.
          env: { HISTORIES: process.env.HISTORIES ?? '20000' },
        },
      },
      {
        test: {
          name: 'e2e',
          include: ['test/e2e/**/*.test.ts'],
          pool: 'forks',
          maxWorkers: 2,
          // They measure time; a build machine that stands still for a second is no finding.
          retry: process.env.CI ? 1 : 0,
          testTimeout: 30_000,
          hookTimeout: 30_000,
        },
      },
      {
        test: {
          name: 'conformance',
          include: ['test/conformance/**/*.test.ts'],
          pool: 'forks',
          maxWorkers: 1,
          testTimeout: 30_000,
          hookTimeout: 30_000,
        },
      },
      {
        test: {
          name: 'twins',
          include: ['test/twins/**/*.test.ts'],
          globalSetup: 'test/twins/setup.ts',
          pool: 'forks',
          maxWorkers: 1,
          // The programs run in other processes, several at a time; a test waits for its turn too.
          maxConcurrency: 30,
          testTimeout: 300_000,
          hookTimeout: 30_000,
        },
      },
      {
        test: {
          name: 'package',
          include: ['test/package/**/*.test.ts'],
          globalSetup: 'test/package/setup.ts',
          pool: 'forks',
          // Half of the time they wait for npm, or for clients that do nothing.
          maxWorkers: 3,
          retry: process.env.CI ? 1 : 0,
          testTimeout: 120_000,
          hookTimeout: 300_000,
        },
      },
      {
        test: {
          name: 'faults',
          include: ['test/faults/**/*.test.ts'],
          pool: 'forks',
          // Each of them measures time, or wants the machine for itself.
          fileParallelism: false,
          maxWorkers: 1,
          retry: process.env.CI ? 1 : 0,
          testTimeout: 120_000,
          hookTimeout: 30_000,
        },
      },
      {
        test: {
          name: 'links',
          include: ['test/links/**/*.test.ts'],
          pool: 'forks',
          // Server, relay and clients are processes of their own; two worlds at once would share the cores.
          fileParallelism: false,
          maxWorkers: 1,
          testTimeout: 30_000,
          hookTimeout: 300_000,
        },
      },
      {
        test: {
          name: 'soak',
          include: ['test/soak/**/*.test.ts'],
          pool: 'forks',
          fileParallelism: false,
          maxWorkers: 1,
          hookTimeout: 30_000,
        },
      },
      {
        test: {
          name: 'fuzz',
          include: ['test/fuzz/**/*.test.ts'],
          pool: 'forks',
          fileParallelism: false,
          maxWorkers: 1,
          // A loaded machine takes minutes for tens of thousands of connections.
          testTimeout: 400_000,
          hookTimeout: 30_000,
        },
      },
    ],
  },
});
