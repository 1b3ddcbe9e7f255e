import { placesOf, shared } from './shared.mjs';

/**
 * Everything that decides: tested on a clock that stands still.
 * @type {import('@stryker-mutator/api/core').PartialStrykerOptions}
 */
export default {
  ...shared,
  ...placesOf('core'),
  mutate: [
    'src/{admission,cleanup,liveness,store}/**/*.ts',
    '!src/admission/{current-manager.decorator,gateway-hooks,managed-websocket,websocket-manager.adapter}.ts',
  ],
  vitest: { configFile: 'test/mutation/core.vitest.ts', related: false },
};
