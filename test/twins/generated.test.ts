import { afterAll, expect, inject, it } from 'vitest';
import { SeededRandom } from '../support/seeded-random.js';
import { generate, generatedProgram, type Script, smaller } from './generated.js';
import { Twins } from './runner.js';

/** TWINS_PROGRAMS: how many; TWINS_SEED: which; TWINS_SCRIPT: one that was printed, instead of them. */
const { TWINS_PROGRAMS = '200', TWINS_SEED = '1', TWINS_SCRIPT } = process.env;
/** For a shorter program that fails too. */
const MOST_ATTEMPTS = 150;

const twins = new Twins(inject('twins'));
afterAll(() => twins.end());

function compare(script: Script): Promise<string | undefined> {
  return twins.compare(generatedProgram(script));
}

/** A short program with a difference, as it can be given to TWINS_SCRIPT. */
async function shortened(script: Script, verdict: string): Promise<string> {
  let [shortest, its] = [script, verdict];
  let attempts = 0;
  for (let isSmaller = true; isSmaller && attempts < MOST_ATTEMPTS; ) {
    isSmaller = false;
    for (const candidate of smaller(shortest)) {
      if (++attempts > MOST_ATTEMPTS) break;
      const difference = await compare(candidate);
      if (difference === undefined) continue;
      [shortest, its, isSmaller] = [candidate, difference, true];
      break;
    }
  }
  return `TWINS_SCRIPT='${JSON.stringify(shortest)}'\n${its}`;
}

const scripts: readonly Script[] =
  TWINS_SCRIPT === undefined
    ? Array.from({ length: Number(TWINS_PROGRAMS) }, (_, i) =>
        generate(new SeededRandom(Number(TWINS_SEED)).fork(`program ${i}`)),
      )
    : [JSON.parse(TWINS_SCRIPT) as Script];

it(
  `${scripts.length} generated programs run under the module as under the plain WsAdapter`,
  async () => {
    const verdicts = await Promise.all(scripts.map(compare));
    const different = scripts.flatMap((script, i) => {
      const verdict = verdicts[i];
      return verdict === undefined ? [] : [{ script, verdict }];
    });
    const [first] = different;
    if (first) {
      const example = await shortened(first.script, first.verdict);
      throw new Error(
        `${different.length} of ${scripts.length} programs differ; seed ${TWINS_SEED}\n${example}`,
      );
    }
  },
  60_000 + scripts.length * 2_000,
);

it('a generated program is the same again', () => {
  const once = generate(new SeededRandom(7));
  expect(generate(new SeededRandom(7))).toEqual(once);
  expect(generate(new SeededRandom(8))).not.toEqual(once);
});
