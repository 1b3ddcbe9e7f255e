import type {
  SlotHolder,
  SlotReply,
  SlotRequest,
  SlotStore,
  SlotStoreHost,
} from '../../src/options/slot-store.interface.js';
import type { Core } from '../support/core.js';
import type { HistoryClock } from './history-clock.js';

/** How the store treats one node: the request may be long under way, and so may the answer. */
export type Mood =
  | 'prompt'
  | 'throws'
  | 'rejects'
  /** What is asked is done, and nobody is told. */
  | 'is not heard'
  /** What is asked is lost. */
  | 'does not hear'
  | { readonly there: number; readonly back: number };

interface Held {
  readonly node: number;
  readonly user: string;
  /** The node was never told that it has the slot. */
  isUnheard: boolean;
}

interface TakenOver {
  readonly by: string;
  readonly user: string;
  /** Which node asked for it. */
  readonly node: number;
  readonly at: number;
  readonly isLiving: boolean;
}

/** Where the slots of several nodes are counted, by hand: one list of who holds what. */
export class SharedStore {
  readonly held = new Map<string, Held>();
  /** How often each slot was given back. */
  readonly released = new Map<string, number>();
  /** Slots that were given to one in the place of another. */
  readonly takenOver: TakenOver[] = [];
  /** Those of them that count against a budget: a node forgets it with the user. */
  charged: TakenOver[] = [];
  /** When each user was last told that no slot is free. */
  readonly fullAt = new Map<string, number>();
  readonly broken: string[] = [];
  /** Something was not answered in time, or went wrong: nodes may have decided alone. */
  wasAway = false;
  private readonly hosts: SlotStoreHost[] = [];
  private readonly nodes: Core[] = [];
  /** Whose place may be taken, as the store has said, and whether somebody may be using it. */
  private readonly offered = new Map<string, 'living' | 'suspect'>();

  constructor(
    private readonly clock: HistoryClock,
    private readonly timeoutMs: number,
    private readonly graceMs: number,
  ) {}

  of(user: string): string[] {
    return [...this.held].filter(([, held]) => held.user === user).map(([id]) => id);
  }

  join(node: Core): void {
    this.nodes.push(node);
  }

  reserve(node: number, { userId: user, managerId, limit, insteadOf }: SlotRequest): SlotReply {
    const others = this.of(user).filter((id) => id !== managerId && id !== insteadOf);
    if (others.length >= limit) {
      this.fullAt.set(user, this.clock.now());
      const elsewhere = this.holdersElsewhere(node, user);
      for (const { managerId: id, suspect, ageMs } of elsewhere)
        if (suspect || ageMs >= this.graceMs) this.offered.set(id, suspect ? 'suspect' : 'living');
      return { granted: false, count: this.of(user).length, elsewhere };
    }
    this.held.set(managerId, { node, user, isUnheard: false });
    const from = insteadOf === undefined ? undefined : this.held.get(insteadOf);
    if (insteadOf !== undefined && from) {
      if (!this.offered.has(insteadOf))
        this.broken.push(`${insteadOf} was to go, and had neither left nor been there for long`);
      if (from.node === node) this.broken.push(`${insteadOf} is at home, and was taken over`);
      this.held.delete(insteadOf);
      const isLiving = this.offered.get(insteadOf) === 'living';
      const taken = { by: managerId, user, node, at: this.clock.now(), isLiving };
      this.takenOver.push(taken);
      this.charged.push(taken);
      this.hosts[from.node]?.evict(insteadOf);
    }
    return { granted: true, count: this.of(user).length };
  }

  /** Of what was never answered only the store knows, so it has to ask; all else the node gives back by itself. */
  reconcile(): void {
    for (const [id, { node, isUnheard }] of this.held)
      if (isUnheard && !this.hosts[node]?.has(id)) this.held.delete(id);
  }

  forget(node: number, user: string): void {
    this.charged = this.charged.filter((one) => one.node !== node || one.user !== user);
  }

  release(managerId: string): void {
    this.held.delete(managerId);
    this.released.set(managerId, (this.released.get(managerId) ?? 0) + 1);
  }

  /** The store, as one node has it. */
  forNode(node: number): NodeStore {
    return new NodeStore(this, node, this.clock, this.timeoutMs);
  }

  attach(node: number, host: SlotStoreHost): void {
    this.hosts[node] = host;
  }

  private holdersElsewhere(node: number, user: string): SlotHolder[] {
    const now = this.clock.now();
    return this.nodes.flatMap((core, i) =>
      i === node
        ? []
        : [...(core.registry.user(user)?.managers ?? [])]
            .filter(({ id }) => this.held.has(id))
            .map((manager) => ({
              managerId: manager.id,
              suspect: manager.connections.length === 0,
              idle: now - manager.lastActivityAt >= core.options.cleanup.idleAfterMs,
              busy: manager.isBusy,
              priority: manager.priority,
              ageMs: now - manager.createdAt,
              inactiveForMs: now - manager.lastActivityAt,
            })),
    );
  }
}

class NodeStore implements SlotStore {
  readonly name = 'shared';
  mood: Mood = 'prompt';

  constructor(
    private readonly shared: SharedStore,
    private readonly node: number,
    private readonly clock: HistoryClock,
    private readonly timeoutMs: number,
  ) {}

  attach(host: SlotStoreHost): void {
    this.shared.attach(this.node, host);
  }

  reserve(request: SlotRequest): SlotReply | Promise<SlotReply> {
    return this.answer(() => {
      const reply = this.shared.reserve(this.node, request);
      const held = this.shared.held.get(request.managerId);
      if (held) held.isUnheard = this.mood === 'is not heard';
      return reply;
    });
  }

  release(_user: string, managerId: string): void | Promise<void> {
    return this.answer(() => this.shared.release(managerId));
  }

  leave(): void {
    for (const [id, { node }] of this.shared.held) if (node === this.node) this.shared.held.delete(id);
  }

  private answer<T>(decide: () => T): T | Promise<T> {
    const { mood } = this;
    if (mood === 'prompt') return decide();
    const isInTime = typeof mood === 'object' && mood.there + mood.back < this.timeoutMs;
    if (!isInTime) this.shared.wasAway = true;
    switch (mood) {
      case 'throws':
        throw new Error('the store is not there');
      case 'rejects':
        return Promise.reject(new Error('the store is not there'));
      case 'does not hear':
        return new Promise<never>(() => {});
      case 'is not heard':
        decide();
        return new Promise<never>(() => {});
      default:
        return new Promise((resolve) => {
          this.clock.io(() => {
            const reply = decide();
            this.clock.io(() => resolve(reply), mood.back);
          }, mood.there);
        });
    }
  }
}
