// Servers in turns, and what may be said of the numbers.

/**
 * Runs a measure on each of its servers, `rounds` times, in turns: whatever the machine does meanwhile, it does to
 * all. Every other round goes backwards, so that nobody is always the one after somebody else. A measure of nothing but
 * the passing of time may have them all `atOnce`.
 *
 * @returns for each server and metric the value of every round
 */
export async function inTurns(measure, { rounds, servers = measure.servers, settings, say = () => {} }) {
  const values = {};
  for (let round = 0; round < rounds; round++) {
    const order = round % 2 === 0 ? servers : [...servers].reverse();
    const results = measure.atOnce
      ? await Promise.all(order.map((name) => measure.run(name, settings)))
      : undefined;
    for (const [turn, name] of order.entries()) {
      const result = results ? results[turn] : await measure.run(name, settings);
      say(`${measure.id} ${round + 1}/${rounds} ${name}: ${JSON.stringify(rounded(result))}`);
      for (const [metric, value] of Object.entries(result)) {
        values[name] ??= {};
        values[name][metric] ??= [];
        values[name][metric][round] = value;
      }
    }
  }
  return values;
}

/** Median, least and most. */
export function summary(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const median = sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
  return { median, min: sorted[0], max: sorted.at(-1) };
}

/** One server beside another, round by round: what the machine did to both is divided out. */
export function ratio(values, metric, server, peer) {
  const [mine, theirs] = [values[server]?.[metric], values[peer]?.[metric]];
  if (!mine || !theirs) return undefined;
  return summary(mine.map((value, round) => value / theirs[round]));
}

function rounded(result) {
  return Object.fromEntries(
    Object.entries(result).map(([key, value]) => [key, Number(value.toPrecision(4))]),
  );
}
