import { expect, it } from 'vitest';
import { Turns } from '../../src/admission/turns.js';

const [ALICE, BOB] = [{}, {}];

/** Work that is done when it is told to be. */
function work(log: string[], name: string) {
  let resolve = (_: string) => {};
  let reject = (_: Error) => {};
  const promise = new Promise<string>((yes, no) => {
    [resolve, reject] = [yes, no];
  });
  const begin = () => {
    log.push(name);
    return promise;
  };
  return { begin, done: () => resolve(name), fail: () => reject(new Error(name)) };
}

it('gives one a turn at a time, in order, and nobody waits for the turns of others', async () => {
  const turns = new Turns<object>();
  const log: string[] = [];
  const [first, second, other] = ['first', 'second', 'other'].map((name) => work(log, name)) as [
    Work,
    Work,
    Work,
  ];
  const results = [
    turns.take(ALICE, first.begin),
    turns.take(ALICE, second.begin),
    turns.take(BOB, other.begin),
  ];

  await Promise.resolve();
  expect(log).toEqual(['first', 'other']);
  second.done();
  await Promise.resolve();
  expect(log).toEqual(['first', 'other']);
  first.done();
  other.done();
  expect(await Promise.all(results)).toEqual(['first', 'second', 'other']);
  expect(log).toEqual(['first', 'other', 'second']);
});

it('goes on after a turn that failed, and is free when all are done', async () => {
  const turns = new Turns<object>();
  const log: string[] = [];
  const [failing, last] = [work(log, 'failing'), work(log, 'last')];
  const [failure, success] = [turns.take(ALICE, failing.begin), turns.take(ALICE, last.begin)];

  expect([turns.isTaken(ALICE), turns.isTaken(BOB)]).toEqual([true, false]);
  failing.fail();
  await expect(failure).rejects.toThrow('failing');
  expect(turns.isTaken(ALICE)).toBe(true);
  last.done();
  expect(await success).toBe('last');
  expect(turns.isTaken(ALICE)).toBe(false);
});

type Work = ReturnType<typeof work>;
