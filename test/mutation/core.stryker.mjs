import { placesOf, shared } from './shared.mjs';

/**
 * Everything that decides: tested on a clock that stands still.
 * @type {import('@stryker-mutator/api/core').PartialStrykerOptions}
 */
export default {
  ...shared,
  ...placesOf('core'),
  mutate: [
    'src/{cleanup,liveness,store}/**/*.ts',
    'src/admission/{canary,drain-signals,drain-state,drain.service,errors,evicted-sessions,refusal,websocket-manager.factory}.ts',
  ],
  vitest: { configFile: 'test/mutation/core.vitest.ts', related: false },
};
