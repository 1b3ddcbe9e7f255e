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
  vitest: { configFile: 'test/mutation/door.vitest.ts', related: false },
};
