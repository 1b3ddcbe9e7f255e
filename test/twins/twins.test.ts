import { afterAll, describe, expect, inject, it } from 'vitest';
import { DIFFERENCES } from './differences.js';
import { programs } from './programs/index.js';
import { Twins } from './runner.js';

const twins = new Twins(inject('twins'));
afterAll(() => twins.end());

describe.concurrent('a program runs under the module as under the plain WsAdapter', () => {
  it.each(programs.map((program) => [program.name, program] as const))('%s', async (_name, program) => {
    const verdict = await twins.compare(program);
    if (verdict !== undefined) throw new Error(`${program.name}\n${verdict}`);
  });
});

describe('the programs', () => {
  it('have names of their own', () => {
    const names = programs.map(({ name }) => name);
    expect(names.filter((name, i) => names.indexOf(name) !== i)).toEqual([]);
  });

  it('show each named difference', () => {
    const shown = new Set(programs.flatMap(({ differs }) => differs?.because ?? []));
    expect([...shown].sort()).toEqual(Object.keys(DIFFERENCES).sort());
  });
});
