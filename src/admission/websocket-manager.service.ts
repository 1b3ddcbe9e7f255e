import { Injectable } from '@nestjs/common';
import type { Observable } from 'rxjs';
import { Clock } from '../clock/clock.js';
import { EventStream } from '../events/event-stream.js';
import type { WebSocketManagerEvent } from '../events/websocket-manager-event.js';
import { evidenceOf, rulesOf } from '../liveness/assessment.js';
import type { Manager } from '../manager/manager.js';
import { ManagerRegistry } from '../manager/manager-registry.js';

/** What an application talks to. */
@Injectable()
export class WebSocketManagerService {
  /**
   * Everything that happens. A listener that throws or rejects is logged, and ends nothing, behind operators of this
   * stream too (`events$.pipe(...)`). A new stream that is made of it, as by `merge(events$, other)`, is RxJS' own, and
   * there a throw ends the process as ever.
   */
  readonly events$: Observable<WebSocketManagerEvent>;

  constructor(
    private readonly registry: ManagerRegistry,
    private readonly clock: Clock,
    events: EventStream,
  ) {
    this.events$ = events.events$;
  }

  /** The user's sessions on this node, oldest first. */
  managersOf(userId: string): Manager[] {
    return [...(this.registry.user(userId)?.managers ?? [])];
  }

  /** One session, by its id. */
  manager(managerId: string): Manager | undefined {
    return this.registry.manager(managerId);
  }

  /**
   * Sends `{"event", "data"}` to every connection of the user on this node, serialised once.
   * @returns to how many connections it went; 0 means that the user is not here.
   */
  sendToUser(userId: string, event: string, data: unknown): number {
    const managers = this.managersOf(userId);
    return managers.length === 0 ? 0 : sendToAll(managers, event, data);
  }

  /**
   * Sends `{"event", "data"}` to every connection of this node, serialised once.
   * @returns to how many connections it went.
   */
  broadcast(event: string, data: unknown): number {
    return sendToAll([...this.registry.allManagers], event, data);
  }

  /**
   * Ends every session of the user on this node with 4520, as after a sign-out or a ban.
   * @returns how many sessions ended.
   */
  disconnectUser(userId: string): number {
    const managers = this.managersOf(userId);
    for (const manager of managers) this.disconnect(manager);
    return managers.length;
  }

  /** Ends one session with 4520. Returns whether there was one. */
  disconnectManager(managerId: string): boolean {
    const manager = this.registry.manager(managerId);
    if (manager) this.disconnect(manager);
    return manager !== undefined;
  }

  private disconnect(manager: Manager): void {
    const evidence = evidenceOf(manager, 'operator', this.clock.now(), rulesOf(this.registry.options));
    void manager.close({ reason: 'terminated_by_admin', evidence });
  }
}

function sendToAll(managers: readonly Manager[], event: string, data: unknown): number {
  const frame = JSON.stringify({ event, data });
  return managers.reduce((sent, manager) => sent + manager.sendFrame(frame), 0);
}
