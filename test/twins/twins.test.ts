import { afterAll, describe, inject, it } from 'vitest';
import { programs } from './programs/index.js';
import { areEqual, differencesOf, Twins } from './runner.js';

const twins = new Twins(inject('twins'));
afterAll(() => twins.end());

describe.concurrent('programs', () => {
  it.each(programs.map((program) => [program.name, program] as const))('%s', async (_name, program) => {
    const { platform, module } = await twins.settled(program, areEqual);
    if (!areEqual({ platform, module })) throw new Error(differencesOf(platform, module));
  });
});
