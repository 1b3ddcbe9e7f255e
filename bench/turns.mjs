// Servers in turns, and what may be said of the numbers.

/**
 * Runs a measure on each of its servers, `rounds` times `turnsARound`, in turns: whatever the machine does meanwhile, it
 * does to all. Every other turn goes backwards, so that nobody is always the one after somebody else. A measure of nothing
 * but the passing of time may have them all `atOnce`.
 *
 * A measure with `run` has a new server for each turn; one with `open` keeps all of them, side by side, so that its
 * turns can be short: a machine that others share too is the same for a second, not for a minute.
 *
 * @returns for each server and metric the value of every turn
 */
export async function inTurns(measure, { rounds, servers = measure.servers, settings, say = () => {} }) {
  const { turnsARound = 1 } = measure;
  const values = {};
  await withTurns(measure, servers, settings, async (turns) => {
    for (let turn = 0; turn < rounds * turnsARound; turn++) {
      const order = turn % 2 === 0 ? servers : [...servers].reverse();
      const results = measure.atOnce ? await Promise.all(order.map((name) => turns[name]())) : undefined;
      for (const [place, name] of order.entries()) {
        const result = results ? results[place] : await turns[name]();
        say(`${measure.id} ${turn + 1}/${rounds * turnsARound} ${name}: ${JSON.stringify(rounded(result))}`);
        for (const [metric, value] of Object.entries(result)) {
          values[name] ??= {};
          values[name][metric] ??= [];
          values[name][metric][turn] = value;
        }
      }
    }
  });
  return values;
}

/** Hands `use` what each server does in its turn, by its name. */
async function withTurns(measure, [name, ...others], settings, use, turns = {}) {
  if (name === undefined) return use(turns);
  const withOthers = (turn) => withTurns(measure, others, settings, use, { ...turns, [name]: turn });
  return measure.open
    ? measure.open(name, settings, withOthers)
    : withOthers(() => measure.run(name, settings));
}

/** So many values have a middle half. */
export const MANY = 8;

/** Median, least and most; of many the middle half, since one turn that was disturbed says nothing of the others. */
export function summary(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (share) => {
    const place = share * (sorted.length - 1);
    const [below, above] = [sorted[Math.floor(place)], sorted[Math.ceil(place)]];
    return below + (above - below) * (place % 1);
  };
  const cut = sorted.length < MANY ? 0 : 0.25;
  return { median: at(0.5), min: at(cut), max: at(1 - cut) };
}

/** One server beside another, turn by turn: what the machine did to both is divided out. */
export function ratio(values, metric, server, peer) {
  const [mine, theirs] = [values[server]?.[metric], values[peer]?.[metric]];
  if (!mine || !theirs) return undefined;
  return summary(mine.map((value, turn) => value / theirs[turn]));
}

function rounded(result) {
  return Object.fromEntries(
    Object.entries(result).map(([key, value]) => [key, Number(value.toPrecision(4))]),
  );
}
