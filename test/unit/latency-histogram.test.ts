import { AggregatorRegistry, Histogram, Registry } from 'prom-client';
import { beforeEach, describe, expect, it } from 'vitest';
import { LatencyHistogram } from '../../src/observability/latency-histogram.js';

const BOUNDS = [0.0005, 0.001, 0.25, 1, 2.5];
const NAME = 'decision_seconds';
let ours: LatencyHistogram;
let theirs: Histogram;
const registries = [new Registry(), new Registry()] as const;

beforeEach(() => {
  for (const registry of registries) registry.clear();
  ours = new LatencyHistogram(NAME, 'Time to decide', BOUNDS);
  registries[0].registerMetric(ours as never);
  theirs = new Histogram({
    name: NAME,
    help: 'Time to decide',
    buckets: BOUNDS,
    registers: [registries[1]],
  });
});

function observe(...values: number[]): void {
  for (const value of values) {
    ours.observe(value);
    theirs.observe(value);
  }
}

/** What a scrape of each reads. */
async function scrapes(): Promise<[string, string]> {
  return [await registries[0].metrics(), await registries[1].metrics()];
}

describe('a histogram of seconds', () => {
  it('reads as prom-client’s own does', async () => {
    const empty = await scrapes();
    expect(empty[0]).toBe(empty[1]);
    observe(0, 0.0004, 0.0005, 0.00051, 0.001, 0.3, 1, 1, 2.4999, 2.5, 2.51, 1e9);
    for (let i = 0; i < 1_000; i++) observe(3 * (i / 1_000) ** 4);
    const [mine, its] = await scrapes();
    expect(mine).toBe(its);
    expect(mine).toContain(`${NAME}_count 1012`);
  });

  it('with the default labels of its registry, and as JSON', async () => {
    for (const registry of registries) registry.setDefaultLabels({ node: 'a' });
    observe(0.1, 7);
    const [mine, its] = await scrapes();
    expect(mine).toBe(its);
    expect(mine).toContain(`${NAME}_bucket{le="0.25",node="a"} 1`);
    const [json, itsJson] = await Promise.all(registries.map((registry) => registry.getMetricsAsJSON()));
    // Its lines say that they have no exemplar.
    const lines = (read: unknown) =>
      JSON.parse(JSON.stringify(read, (_, value: unknown) => (value === null ? undefined : value)));
    expect(lines(json)).toEqual(lines(itsJson));
  });

  it('adds up over the processes of a cluster', async () => {
    observe(0.1, 7);
    const json = await registries[0].getMetricsAsJSON();
    const together = AggregatorRegistry.aggregate([json, json] as never);
    const text = await together.metrics();
    expect(text).toContain(`${NAME}_bucket{le="0.25"} 2`);
    expect(text).toContain(`${NAME}_count 4`);
    expect(text).toContain(`${NAME}_sum 14.2`);
  });

  it('begins anew when the registry is reset', async () => {
    observe(0.1, 7);
    registries[0].resetMetrics();
    expect(await registries[0].metrics()).toContain(`${NAME}_count 0`);
    ours.observe(0.1);
    expect(await registries[0].metrics()).toContain(`${NAME}_sum 0.1`);
  });
});
