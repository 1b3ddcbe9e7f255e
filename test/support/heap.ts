import type { Server } from './server.js';
import { until } from './stranger.js';

/** Arguments of node for a server that {@link heapUsed} can be asked of. */
export const WITH_HEAP_REPORT: readonly string[] = [
  '--expose-gc',
  '--import',
  `data:text/javascript,${encodeURIComponent(
    "process.on('SIGWINCH', () => { gc(); gc(); console.log('heap', process.memoryUsage().heapUsed); });",
  )}`,
];

/** What a report looks like among the lines that the server writes. */
export const HEAP_REPORT = /^heap (\d+)$/;

/** What the server's heap holds when everything that can be freed is. */
export async function heapUsed(server: Server): Promise<number> {
  const reports = () => server.lines.flatMap((line) => HEAP_REPORT.exec(line)?.[1] ?? []).map(Number);
  const before = reports().length;
  server.signal('SIGWINCH');
  await until(() => reports().length > before, 20_000, 'the report of the heap');
  return reports().at(-1) as number;
}
