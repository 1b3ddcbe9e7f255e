import { placesOf, shared } from './shared.mjs';

/**
 * What touches sockets and Nest: tested with applications that run in the process of the test.
 * @type {import('@stryker-mutator/api/core').PartialStrykerOptions}
 */
export default {
  ...shared,
  ...placesOf('door'),
  mutate: [
    'src/admission/**/*.ts',
    '!src/admission/{canary,drain-signals,drain-state,drain.service,errors,evicted-sessions,refusal,websocket-manager.factory}.ts',
  ],
  vitest: { configFile: 'test/mutation/door.vitest.ts', related: false },
};
