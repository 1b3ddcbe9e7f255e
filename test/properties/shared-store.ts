import type {
  SlotHolder,
  SlotReply,
  SlotRequest,
  SlotStore,
  SlotStoreHost,
} from '../../src/options/slot-store.interface.js';
import type { Core } from '../support/core.js';
import type { HistoryClock } from './history-clock.js';

/** How the store treats a call: the request may be long under way, and so may the answer. */
export type Mood =
  | 'prompt'
  | 'throws'
  | 'rejects'
  /** Executed; the answer is lost. */
  | 'lost on the way back'
  /** Not executed. */
  | 'lost on the way there'
  /** Executed, and executed again before the answer, as by a client that repeats after a lost connection. */
  | 'twice'
  /** Executed, and answered with something that is no answer. */
  | { readonly invalid: number }
  | { readonly there: number; readonly back: number };

export type Operation = 'reserve' | 'release';

/** Answers that are none; the last ones only of a refusal. */
export const INVALID: readonly ((count: number) => unknown)[] = [
  () => undefined,
  () => null,
  () => 'granted',
  () => ({}),
  () => ({ granted: true }),
  () => ({ granted: false, count: Number.NaN }),
  () => ({ granted: false, count: -1 }),
  () => ({ granted: 'yes', count: 1 }),
  (count) => ({ granted: true, count: `${count}` }),
  () => ({ granted: false, count: 0 }),
  () => ({ granted: false, count: 1e9, elsewhere: {} }),
  () => ({ granted: false, count: 1e9, elsewhere: [{ managerId: 'x' }] }),
];

/** A call that takes no longer leaves time for all calls of an admission. */
export const PROMPT_MS = 12;

interface Held {
  readonly node: number;
  readonly user: string;
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
  /** Managers that have given their slot back: none of them is reserved again. */
  readonly released = new Set<string>();
  /** Slots that were given to one in the place of another. */
  readonly takenOver: TakenOver[] = [];
  /** Those of them that count against a budget: a node forgets it with the user. */
  charged: TakenOver[] = [];
  /** When each user was last told that no slot is free. */
  readonly fullAt = new Map<string, number>();
  readonly broken: string[] = [];
  /** Users of whom a call was not answered in time, or went wrong: nodes may have decided alone about them. */
  readonly away = new Set<string>();
  private readonly hosts: SlotStoreHost[] = [];
  private readonly nodes: Core[] = [];
  /** Whose place may be taken, as the store has said, and whether somebody may be using it. */
  private readonly offered = new Map<string, 'living' | 'suspect'>();

  constructor(
    private readonly clock: HistoryClock,
    private readonly graceMs: number,
  ) {}

  of(user: string): string[] {
    return [...this.held].filter(([, held]) => held.user === user).map(([id]) => id);
  }

  join(node: Core): void {
    this.nodes.push(node);
  }

  reserve(node: number, { userId: user, managerId, limit, insteadOf }: SlotRequest): SlotReply {
    if (this.released.has(managerId)) this.broken.push(`${managerId} was reserved after its release`);
    const others = this.of(user).filter((id) => id !== managerId && id !== insteadOf);
    if (others.length >= limit) {
      this.fullAt.set(user, this.clock.now());
      const elsewhere = this.holdersElsewhere(node, user);
      for (const { managerId: id, suspect, ageMs } of elsewhere)
        if (suspect || ageMs >= this.graceMs) this.offered.set(id, suspect ? 'suspect' : 'living');
      return { granted: false, count: this.of(user).length, elsewhere };
    }
    this.held.set(managerId, { node, user });
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

  forget(node: number, user: string): void {
    this.charged = this.charged.filter((one) => one.node !== node || one.user !== user);
  }

  release(managerId: string): void {
    this.held.delete(managerId);
    this.released.add(managerId);
  }

  /** The store, as one node has it. */
  forNode(node: number): NodeStore {
    return new NodeStore(this, node, this.clock);
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

/** For which calls a mood is: of one operation or of all, of one user or of all. */
export interface Scope {
  readonly operation: Operation | undefined;
  readonly user: string | undefined;
}

export class NodeStore implements SlotStore {
  readonly name = 'shared';
  private readonly moods = new Map<string, Mood>();
  /** Calls for each manager that have not been answered. */
  private readonly inFlight = new Map<string, number>();

  constructor(
    private readonly shared: SharedStore,
    private readonly node: number,
    private readonly clock: HistoryClock,
  ) {}

  /** Later moods of the same scope take the place of earlier ones; a narrower scope goes before a wider one. */
  become(mood: Mood, { operation, user }: Scope): void {
    for (const one of operation ? [operation] : (['reserve', 'release'] as const))
      this.moods.set(`${one} ${user ?? ''}`, mood);
  }

  recover(): void {
    this.moods.clear();
  }

  attach(host: SlotStoreHost): void {
    this.shared.attach(this.node, host);
  }

  reserve(request: SlotRequest): SlotReply | Promise<SlotReply> {
    return this.answer('reserve', request.userId, request.managerId, () =>
      this.shared.reserve(this.node, request),
    );
  }

  release(user: string, managerId: string): void | Promise<void> {
    return this.answer('release', user, managerId, () => this.shared.release(managerId));
  }

  leave(): void {
    for (const [id, { node }] of this.shared.held) if (node === this.node) this.shared.held.delete(id);
  }

  private answer<T>(operation: Operation, user: string, managerId: string, decide: () => T): T | Promise<T> {
    const mood =
      this.moods.get(`${operation} ${user}`) ?? this.moods.get(`${operation} `) ?? ('prompt' as const);
    const isPrompt =
      mood === 'prompt' ||
      mood === 'twice' ||
      (typeof mood === 'object' && 'there' in mood && mood.there + mood.back <= PROMPT_MS);
    if (!isPrompt) this.shared.away.add(user);
    if (mood === 'prompt') return decide();
    if (mood === 'throws') throw new Error('the store is not there');
    return this.follow(operation, managerId, this.answerLater(mood, decide));
  }

  private answerLater<T>(mood: Exclude<Mood, 'prompt' | 'throws'>, decide: () => T): Promise<T> {
    if (mood === 'rejects') return Promise.reject(new Error('the store is not there'));
    if (mood === 'lost on the way there') return new Promise<never>(() => {});
    if (mood === 'lost on the way back') {
      decide();
      return new Promise<never>(() => {});
    }
    if (mood === 'twice') {
      decide();
      return new Promise((resolve) => this.clock.io(() => resolve(decide()), 4));
    }
    if ('invalid' in mood) {
      decide();
      return Promise.resolve(INVALID[mood.invalid % INVALID.length]?.(1) as T);
    }
    return new Promise((resolve) => {
      this.clock.io(() => {
        const reply = decide();
        this.clock.io(() => resolve(reply), mood.back);
      }, mood.there);
    });
  }

  /** One call in flight for each slot; one that hangs counts as lost after a long time, and is repeated. */
  private follow<T>(operation: Operation, managerId: string, answer: Promise<T>): Promise<T> {
    const calls = (this.inFlight.get(managerId) ?? 0) + 1;
    this.inFlight.set(managerId, calls);
    const startedAt = this.clock.now();
    if (calls > 1 && startedAt - (this.lastCallAt.get(managerId) ?? 0) < LOST_MS)
      this.shared.broken.push(`${operation} of ${managerId} while a call for it is in flight`);
    this.lastCallAt.set(managerId, startedAt);
    const settled = () => {
      this.inFlight.set(managerId, (this.inFlight.get(managerId) ?? 1) - 1);
    };
    answer.then(settled, settled);
    return answer;
  }

  private readonly lastCallAt = new Map<string, number>();
}

/** So long a call without an answer may block its slot. */
const LOST_MS = 9_000;
