const NONE: readonly never[] = [];

/**
 * A set in order of insertion, which needs no table while it has one member. Most users have one session, and a
 * table is a twentieth of what their connection costs.
 */
export class OneOrMany<T extends object> implements Iterable<T> {
  private members: T | Set<T> | undefined;

  get size(): number {
    if (this.members === undefined) return 0;
    return this.members instanceof Set ? this.members.size : 1;
  }

  add(member: T): void {
    const { members } = this;
    if (members === undefined || members === member) this.members = member;
    else if (members instanceof Set) members.add(member);
    else this.members = new Set([members, member]);
  }

  delete(member: T): void {
    const { members } = this;
    if (members === member) this.members = undefined;
    else if (members instanceof Set) members.delete(member);
  }

  [Symbol.iterator](): IterableIterator<T> {
    const { members } = this;
    if (members === undefined) return NONE.values();
    return members instanceof Set ? members.values() : [members].values();
  }
}
