import { DrainService } from '../../src/admission/drain.service.js';
import type { Refused } from '../../src/admission/websocket-manager.factory.js';
import { type CheckedUserContext, checkUserContext } from '../../src/options/user-context.js';
import type { FakeClock, FakePeer } from '../../src/testing/index.js';
import { Core } from '../support/core.js';
import { CountingStore } from './counting-store.js';
import {
  type Action,
  type Check,
  type History,
  type Hook,
  type LinkOfHistory,
  type Peer,
  USERS,
} from './history.js';
import { HistoryClock } from './history-clock.js';
import { Limits } from './limits.js';
import type { LinkConditions } from './link.js';
import { LinkedSocket } from './linked-socket.js';
import { type Member, Model } from './model.js';
import { recount } from './recount.js';
import { restartIds } from './repeatable-ids.js';
import { type HistorySocket, ScriptedSocket } from './scripted-socket.js';
import { type Moment, msOf, optionsOf, type Setting } from './setting.js';
import { type Arrival, Witness } from './witness.js';

type Arrive = Extract<Action, { do: 'arrive' }>;

const HOOK_FAILED = new Error('a hook of this session fails');

const NEWS = JSON.stringify({ event: 'news', data: {} });
/** In one turn of the application. */
const MOST_DOWNLOADED = 20 * 1_024 * 1_024;
const LEAST_BETWEEN_MS = 5;
const MOST_DELAY_MS = 30_000;

/** Frames of a size are the same. */
const frames = new Map<number, string>();

function frameOf(bytes: number): string {
  const frame = frames.get(bytes) ?? 'x'.repeat(bytes);
  frames.set(bytes, frame);
  return frame;
}

/** Timers that are always there: the heartbeat's and the sweep's. */
const OURS = 2;

/** Lives a history through, and looks around after every step. */
export class World {
  readonly sockets: HistorySocket[] = [];
  readonly model: Model;
  readonly witness: Witness;
  steps = 0;
  /** Newcomers who were told when to come back, and have not yet; and handshakes under way. */
  private away = 0;
  private mayComeBack = true;
  private readonly endWork = new Map<string, (() => void)[]>();

  private constructor(
    readonly core: Core,
    readonly store: CountingStore,
    readonly setting: Setting,
    private readonly limits: Limits,
  ) {
    this.model = new Model(setting);
    this.witness = new Witness(core, this.model, setting);
  }

  static async start(setting: Setting): Promise<World> {
    const store = new CountingStore();
    const limits = new Limits(setting.limit);
    restartIds();
    const perUser = setting.tiers ? ({ userId }: CheckedUserContext) => limits.answer(userId) : setting.limit;
    const core = await Core.start(optionsOf(setting, store, perUser), new HistoryClock());
    return new World(core, store, setting, limits);
  }

  /** @throws what was found first against the contract. */
  static async live({ setting, actions, whileDraining }: History): Promise<World> {
    const world = await World.start(setting);
    for (const action of actions) await world.live(action);
    if (whileDraining) await world.drain(whileDraining);
    else await world.end();
    return world;
  }

  get clock(): FakeClock {
    return this.core.clock;
  }

  async live(action: Action): Promise<void> {
    this.steps++;
    await this.take(action);
    await this.clock.settle();
    this.look(action.do);
  }

  look(when: string): void {
    this.witness.settled();
    for (const what of recount(this)) this.witness.complain(what);
    const [first] = this.witness.broken;
    if (first) throw new Error(`${first} (after '${when}')`);
  }

  /** The network falls quiet; then all leave, and nothing may be left. */
  async end(): Promise<void> {
    const { probe, interval, missed, sweep, window, grace, hook, queue } = this.setting;
    this.mayComeBack = false;
    for (let i = 0; this.away + this.witness.waiting.length > 0; i++) {
      if (i > 500) throw new Error('somebody waits for ever at the door');
      await this.pass(probe + 100);
    }
    for (const member of this.model.members) {
      if (member.check) this.setCheck(member, 'alive');
      for (const socket of member.sockets) {
        socket.pause(false);
        socket.stick(false);
        if (socket instanceof LinkedSocket) socket.heal();
        socket.change('answers');
      }
    }
    await this.pass(2 * interval + probe + 100);
    for (const member of this.model.members) member.wasDenied = false;
    this.witness.isQuiet = true;
    await this.pass((missed + 1) * interval + Math.min(sweep, interval) + 2 * probe);
    this.look('a quiet network');
    const ended = this.sockets.filter(({ connection }) => connection.detached);
    // A goodbye that was said in this very instant is answered in the next.
    await this.clock.advance(5);
    this.nothingIsOpen(ended);
    for (const socket of this.sockets) socket.leave();
    // The longest way to be forgotten: hooks and closing handshakes, the window, the grace, each with its tick.
    const most = Math.max(grace, 100) + window + grace + 4 * hook + queue + 4 * probe + interval / 2 + 1_200;
    for (const until = this.clock.now() + most; this.clock.now() < until && !this.isEmpty; )
      await this.clock.advance(interval / 2);
    this.look('all have left');
    this.nothingIsLeft();
  }

  private async take(action: Action): Promise<void> {
    switch (action.do) {
      case 'arrive':
        for (let i = 0; i < action.count; i++) this.arrive(action);
        return;
      case 'wait':
        return this.clock.advance(Math.min(this.msOf(action.for), this.setting.longestWait));
      case 'stall':
        this.witness.stalledMs += this.msOf(action.for);
        this.witness.stalls.push({ from: this.clock.now(), to: this.clock.now() + this.msOf(action.for) });
        await this.clock.stall(this.msOf(action.for));
        this.witness.lastStallAt = this.clock.now();
        return;
      case 'limit':
        this.limits.become(USERS[action.user] as string, action.becomes);
        return;
      case 'wall':
        return this.clock.setWall(this.clock.wallNow() + action.by);
      case 'clean':
        return this.clean(action);
      case 'all become':
        for (const member of this.model.of(USERS[action.user] as string)) this.become(member, action.peer);
        return;
      case 'all leave':
        for (const member of this.model.of(USERS[action.user] as string))
          for (const socket of member.sockets) socket.leave();
        return;
      default: {
        const { members } = this.model;
        const member = members[action.who % Math.max(1, members.length)];
        if (member) this.happenTo(member, action);
      }
    }
  }

  private happenTo(member: Member, action: Extract<Action, { who: number }>): void {
    const [socket] = member.sockets;
    switch (action.do) {
      case 'talk':
        if (action.out) {
          this.sendTo(member, NEWS);
        } else if (!action.out && socket?.state === 'open') {
          socket.receive();
        }
        return;
      case 'download':
        this.download(member, action);
        return;
      case 'stream':
        this.stream(member, action);
        return;
      case 'upload':
        if (socket instanceof LinkedSocket && action.whole) socket.upload(action.bytes);
        else socket?.trickle(action.bytes);
        return;
      case 'link':
        if (socket instanceof LinkedSocket) socket.changeLink(this.linkOf(action.link));
        return;
      case 'cut':
        if (socket instanceof LinkedSocket)
          for (const way of action.way === 'both' ? (['down', 'up'] as const) : [action.way])
            socket.cutFor(way, this.msOf(action.for));
        return;
      case 'read':
        if (socket instanceof LinkedSocket) socket.setReads(action.reads);
        return;
      case 'trickle':
        socket?.trickle();
        return;
      case 'become':
        this.become(member, action.peer);
        return;
      case 'leave':
        socket?.leave();
        return;
      case 'busy':
        this.setBusy(member, action.on);
        return;
      case 'pause':
        socket?.pause(action.on);
        return;
      case 'stick':
        socket?.stick(action.on);
        return;
      case 'check':
        this.setCheck(member, action.check);
        return;
      case 'end':
        void member.manager.close({ reason: 'terminated_by_admin' });
    }
  }

  /** The application sends, if there is anything to send it on. */
  private sendTo(member: Member, frame: string): void {
    if (!member.sockets.some(({ state }) => state === 'open')) return;
    member.activeAt = this.clock.now();
    member.manager.sendFrame(frame);
  }

  private download(member: Member, { bytes, times }: Extract<Action, { do: 'download' }>): void {
    const frame = frameOf(bytes);
    for (let i = 0; i < times && i * bytes < MOST_DOWNLOADED; i++) this.sendTo(member, frame);
  }

  private stream(member: Member, { bytes, every, times }: Extract<Action, { do: 'stream' }>): void {
    const endWork = member.manager.beginWork();
    member.busy++;
    const everyMs = Math.max(LEAST_BETWEEN_MS, this.msOf(every));
    let left = times;
    const next = () => {
      if (left-- > 0 && member.manager.isOpen && this.mayComeBack) {
        this.sendTo(member, frameOf(bytes));
        this.clock.io(next, everyMs);
      } else {
        endWork();
        member.busy--;
      }
    };
    next();
  }

  private linkOf({ delay, ...link }: LinkOfHistory): LinkConditions {
    return { ...link, delayMs: Math.min(this.msOf(delay), MOST_DELAY_MS) };
  }

  arrive(action: Arrive, promise?: Arrival['promise']): void {
    const user = USERS[action.user] as string;
    const key = action.key === undefined ? undefined : `tab-${action.key}`;
    const limit = this.setting.tiers ? this.limits.of(user) : this.setting.limit;
    const own = this.model.of(user);
    const isFirst = !this.witness.waiting.some((one) => one.user === user);
    const arrival: Arrival = {
      user,
      key,
      at: this.clock.now(),
      stalledMs: this.witness.stalledMs,
      isGone: false,
      knowsSuspect: isFirst && own.length === limit && own.some((member) => this.model.isSuspect(member)),
      limit,
      most: own.length,
      promise,
    };
    const { goneAfter } = action;
    if (goneAfter) this.clock.io(() => Object.assign(arrival, { isGone: true }), this.msOf(goneAfter));
    this.witness.waiting.push(arrival);
    const context = checkUserContext({ userId: user, sessionKey: key, priority: action.priority });
    const isFree =
      arrival.most < (arrival.limit ?? 0) &&
      this.setting.perNode === undefined &&
      this.witness.drainsSince === undefined;
    const isAlone = !this.witness.waiting.some((one) => one !== arrival && one.user === user);
    const answer = this.core.factory.admit(context, { isGone: () => arrival.isGone });
    void Promise.resolve(answer).then((result) => {
      this.witness.waiting.splice(this.witness.waiting.indexOf(arrival), 1);
      this.witness.noteProbe(user);
      if (isFree && isAlone && !(result.admitted && this.clock.now() === arrival.at))
        this.witness.complain(`${user} had to wait below the limit`);
      if (!result.admitted) {
        this.witness.notePromise(arrival, result);
        return this.refused(action, arrival, result);
      }
      const member = this.model.members.find(({ id }) => id === result.manager.id);
      const { attaches, attachesAfter, expires } = action;
      if (!member || arrival.isGone || !attaches) return;
      const expiresAt = expires && arrival.at + this.msOf(expires);
      if (!attachesAfter) return this.attach(member, action, expiresAt);
      this.away++;
      this.clock.io(
        () => {
          this.away--;
          if (member.manager.isOpen) this.attach(member, action, expiresAt);
        },
        Math.min(this.msOf(attachesAfter), 2 * this.setting.interval),
      );
    });
  }

  private refused(action: Arrive, arrival: Arrival, { reason, retryAfterMs }: Refused): void {
    if (reason !== 'over_limit' || retryAfterMs === undefined || arrival.isGone) return;
    if (!action.comesBack || !this.mayComeBack) return;
    const { user, limit = 0, madeWhenRefused: managersMade = 0 } = arrival;
    this.away++;
    this.clock.io(() => {
      this.away--;
      const isFirst = !this.witness.waiting.some((one) => one.user === user);
      this.arrive(
        { ...action, goneAfter: undefined, comesBack: false },
        isFirst ? { managersMade, limit } : undefined,
      );
    }, retryAfterMs);
  }

  private attach(member: Member, { peer, hook, check, link }: Arrive, expiresAt: number | undefined): void {
    const { half, fake } = this.peerOf(peer);
    const socket = link
      ? new LinkedSocket(this.clock, fake, half, this.linkOf(link), link, link.knowsBytesTaken)
      : new ScriptedSocket(this.clock, fake, half);
    socket.record.limit = this.setting.buffered;
    socket.record.onAnswer = (afterMs) => this.witness.noteAnswer(afterMs);
    socket.onMessage = () => {
      member.activeAt = this.clock.now();
    };
    this.sockets.push(socket);
    socket.expiresAt = expiresAt;
    socket.bind(member.manager.attach(socket, expiresAt));
    member.sockets.push(socket);
    member.leftAt = undefined;
    if (hook) member.manager.onClose(() => this.runHook(member, hook));
    if (check) this.setCheck(member, check);
  }

  private runHook(member: Member, hook: Hook): unknown {
    if ([...member.manager.user.managers].includes(member.manager))
      this.witness.complain('a hook ran before the slot was free');
    switch (hook) {
      case 'throws':
        throw HOOK_FAILED;
      case 'rejects':
        return Promise.reject(HOOK_FAILED);
      case 'hangs':
        return new Promise<never>(() => {});
      case 'slow':
        return new Promise<void>((resolve) => this.clock.io(resolve, this.setting.hook / 2));
    }
  }

  private setCheck(member: Member, check: Check): void {
    // The check that it replaces may have been asked already, and its answer still counts.
    if (member.check === 'late')
      member.vouchedAt = Math.max(member.vouchedAt, this.clock.now() + this.setting.probe);
    member.check = check;
    if (check === 'dead') member.wasDenied = true;
    member.manager.isAlive(() => {
      switch (check) {
        case 'alive':
          member.vouchedAt = this.clock.now();
          return true;
        case 'dead':
          return false;
        case 'throws':
          throw HOOK_FAILED;
        case 'hangs':
          return new Promise<never>(() => {});
        case 'late':
          return new Promise((resolve) => this.clock.io(() => resolve(true), this.setting.probe));
      }
    });
  }

  private become(member: Member, peer: Peer): void {
    const { half, fake } = this.peerOf(peer);
    for (const socket of member.sockets) socket.change(fake, half);
  }

  private peerOf(peer: Peer): { half: number | undefined; fake: FakePeer } {
    if (typeof peer === 'string') return { half: undefined, fake: peer };
    const ms = this.msOf(peer.after);
    return peer.half ? { half: ms, fake: 'silent' } : { half: undefined, fake: { answersAfterMs: ms } };
  }

  private setBusy(member: Member, on: boolean): void {
    if (on) {
      this.endWork.set(member.id, [...(this.endWork.get(member.id) ?? []), member.manager.beginWork()]);
      member.busy++;
      return;
    }
    const endWork = this.endWork.get(member.id)?.pop();
    if (!endWork) return;
    endWork();
    member.busy--;
  }

  private clean({ user, level, count, dryRun }: Extract<Action, { do: 'clean' }>): void {
    const record = this.core.registry.user(USERS[user] as string);
    if (!record) return;
    const before = record.managers.size;
    this.witness.noteProbe(record.userId);
    void this.core.cleanup.cleanManually(record, { level, count, dryRun });
    if (dryRun && record.managers.size !== before) this.witness.complain('a rehearsal ended somebody');
  }

  private async pass(ms: number): Promise<void> {
    await this.clock.advance(ms);
    this.look('time passing');
  }

  private msOf(moment: Moment): number {
    return msOf(moment, this.setting);
  }

  /** The node goes: nobody is let in, all are told and closed, and nothing is left when it says so. */
  private async drain(actions: readonly Action[]): Promise<void> {
    const { clock, registry, ledger, drain, events, options } = this.core;
    // No gateway, and no door: nobody has disconnect hooks, and nobody is held only to be told.
    const nobody = { whenDisconnected: async () => {}, whenHeldAreGone: async () => {} } as never;
    const service = new DrainService(clock, registry, ledger, nobody, nobody, drain, events, options);
    this.mayComeBack = false;
    this.witness.drainsSince = clock.now();
    let isOver = false;
    const drained = service.drain();
    void drained.then(() => {
      isOver = true;
    });
    if (service.drain() !== drained) this.witness.complain('it drains twice');
    for (const action of actions) await this.live(action);
    const { drainTimeout, drainSpread, hook, interval, probe, queue } = this.setting;
    const until = Math.max(clock.now(), this.witness.drainsSince + drainTimeout + 100);
    await this.pass(until - clock.now());
    // A node that stood still cannot have ended anybody meanwhile.
    if (!isOver && this.witness.lastStallAt < this.witness.drainsSince) throw new Error('it drains for ever');
    await this.pass(drainSpread + 2 * hook + interval + 2 * probe + queue + 1_200);
    if (!isOver) throw new Error('it drains for ever');
    if (registry.managerCount > 0) throw new Error(`${registry.managerCount} managers are left`);
    if (this.witness.waiting.length > 0)
      throw new Error('somebody waits at the door of a node that has gone');
    if (this.witness.drainEvents.map(({ phase }) => phase).join() !== 'started,finished')
      throw new Error('the drain was not told as it was');
    this.nothingIsOpen(this.sockets);
    if (this.clock.timerCount !== OURS) throw new Error(`${this.clock.timerCount - OURS} timers are left`);
  }

  private get isEmpty(): boolean {
    const isForgotten = this.core.registry.userCount === 0;
    return (
      isForgotten && this.clock.timerCount === OURS && this.sockets.every(({ state }) => state === 'closed')
    );
  }

  private nothingIsLeft(): void {
    if (this.core.registry.userCount > 0) throw new Error('somebody is not forgotten');
    if (this.clock.timerCount !== OURS) throw new Error(`${this.clock.timerCount - OURS} timers are left`);
    this.nothingIsOpen(this.sockets);
  }

  private nothingIsOpen(sockets: readonly HistorySocket[]): void {
    const open = sockets.filter(({ state }) => state !== 'closed');
    if (open.length > 0) throw new Error(`${open.length} sockets are left`);
  }
}
