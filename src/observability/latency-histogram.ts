/** One line of a histogram, as prom-client's registry reads it. */
interface Sample {
  readonly labels: Readonly<Record<string, string | number>>;
  readonly value: number;
  readonly metricName: string;
}

/**
 * A histogram of seconds without labels, for a registry of prom-client. It counts in plain numbers and is put into
 * prom-client's words when somebody scrapes: what happens for every newcomer and every pong has to cost nothing, and
 * prom-client's own `observe` finds its bucket by the number's text.
 */
export class LatencyHistogram {
  readonly type = 'histogram';
  /** For prom-client's cluster: the values of several processes are added. */
  readonly aggregator = 'sum';
  private readonly counts: Float64Array;
  private sum = 0;

  constructor(
    readonly name: string,
    readonly help: string,
    /** Upper bounds in seconds, ascending. */
    private readonly bounds: readonly number[],
  ) {
    this.counts = new Float64Array(bounds.length + 1);
  }

  observe(seconds: number): void {
    const { bounds, counts } = this;
    let bucket = 0;
    while (bucket < bounds.length && seconds > (bounds[bucket] as number)) bucket++;
    counts[bucket] = (counts[bucket] as number) + 1;
    this.sum += seconds;
  }

  /** For the registry. */
  async get() {
    const { name, help, type, aggregator } = this;
    return { name, help, type, aggregator, values: this.samples() };
  }

  /** For the registry's `resetMetrics()`. */
  reset(): void {
    this.counts.fill(0);
    this.sum = 0;
  }

  private samples(): Sample[] {
    const upTo = [...this.bounds, '+Inf'];
    let count = 0;
    const samples: Sample[] = upTo.map((le, bucket) => {
      count += this.counts[bucket] as number;
      return { labels: { le }, value: count, metricName: `${this.name}_bucket` };
    });
    samples.push({ labels: {}, value: this.sum, metricName: `${this.name}_sum` });
    samples.push({ labels: {}, value: count, metricName: `${this.name}_count` });
    return samples;
  }
}
