import type { LimitAnswer } from './history.js';

/** The application's function of limits, as good and as bad as the history wants it. */
export class Limits {
  private readonly byUser = new Map<string, LimitAnswer>();

  constructor(private readonly usual: number) {}

  become(user: string, answer: LimitAnswer): void {
    this.byUser.set(user, answer);
  }

  /** What it says, as far as it can be used. */
  of(user: string): number | undefined {
    const answer = this.byUser.get(user) ?? this.usual;
    if (typeof answer !== 'number') return undefined;
    return answer === Number.POSITIVE_INFINITY || (Number.isInteger(answer) && answer >= 1)
      ? answer
      : undefined;
  }

  /** For the options. */
  answer(user: string): number {
    const answer: unknown = this.byUser.get(user) ?? this.usual;
    switch (answer) {
      case 'throws':
        throw new Error('the tiers are not to be found');
      case 'a promise':
        return Promise.resolve(5) as never;
      case 'a rejection':
        return Promise.reject(new Error('the tiers are not to be found')) as never;
      case 'nothing':
        return undefined as never;
      default:
        return answer as number;
    }
  }
}
