import { placesOf, shared } from './shared.mjs';

/**
 * What only means something with a real socket and a real Nest: tested with applications in the test's own process.
 * @type {import('@stryker-mutator/api/core').PartialStrykerOptions}
 */
export default {
  ...shared,
  ...placesOf('door'),
  mutate: [
    'src/admission/{current-manager.decorator,gateway-hooks,managed-websocket,websocket-manager.adapter}.ts',
  ],
  // Much of these files is tested in processes of their own, where no mutant is: see docs/mutation-testing.md.
  thresholds: { high: 95, low: 90, break: 75 },
  vitest: { configFile: 'test/mutation/door.vitest.ts', related: false },
};
