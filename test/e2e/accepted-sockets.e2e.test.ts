import { afterAll, beforeAll, expect, it } from 'vitest';
import { type Server, startServer } from '../support/server.js';
import { until } from '../support/stranger.js';

/** On Node 20 it is 770 and more without `settleSocketClasses`, and 0 with it; on later ones 5 to 300 either way. */
const OLD_SPACE_BYTES_EACH = 600;

/** Has had sockets of other kinds, as any process has, and says what one of an accepted connection's makes grow. */
const PRELUDE = `
  import { Socket } from 'node:net';
  import { getHeapSpaceStatistics } from 'node:v8';
  for (let i = 0; i < 50; i++) for (const kind of ['one', 'two']) new Socket({ [kind]: true });
  const oldSpace = () =>
    getHeapSpaceStatistics().find(({ space_name }) => space_name === 'old_space').space_used_size;
  const accept = (count) => {
    const before = oldSpace();
    for (let i = 0; i < count; i++) {
      new Socket({
        handle: undefined, allowHalfOpen: true, pauseOnCreate: undefined, readable: true, writable: true,
        readableHighWaterMark: 65_536, writableHighWaterMark: 65_536,
      });
    }
    return (oldSpace() - before) / count;
  };
  process.on('SIGWINCH', () => {
    accept(500);
    console.log('old space', accept(2_000));
  });
`;
/** For all that is young, so that nothing grows old meanwhile. */
const ROOM = ['--min-semi-space-size=64', '--max-semi-space-size=64'];

let server: Server;
beforeAll(async () => {
  const nodeArgs = [...ROOM, '--import', `data:text/javascript,${encodeURIComponent(PRELUDE)}`];
  server = await startServer({}, { nodeArgs });
});
afterAll(() => server.stop());

it('an accepted connection makes no hidden classes of its own, which only a full collection takes away', async () => {
  const reports = () => server.lines.flatMap((line) => /^old space (\S+)$/.exec(line)?.[1] ?? []).map(Number);
  server.signal('SIGWINCH');
  await until(() => reports().length > 0, 10_000, 'the report of the old space');
  expect(reports()[0]).toBeLessThan(OLD_SPACE_BYTES_EACH);
});
