import { Injectable } from '@nestjs/common';

const SIGNAL = 'SIGTERM';
/** As a shell reports an end by SIGTERM: 128 + 15. */
const EXIT_CODE = 143;
type Drain = () => Promise<void>;

/** Applications of this process that want to hear of the signal, and the one listener they share. */
const registered = new Set<Drain>();
let isListening = false;

/**
 * Drains on SIGTERM in an application that did not call `enableShutdownHooks()`, and then lets the signal end the
 * process; where the signal does not (PID 1), the process exits with 143. Where another listener is registered (Nest's own
 * shutdown hooks first of all) it does nothing: that one closes the application, which drains.
 */
@Injectable()
export class DrainSignals {
  private drain: Drain | undefined;

  register(drain: Drain): void {
    this.drain = drain;
    registered.add(drain);
    if (!isListening) process.on(SIGNAL, onSignal);
    isListening = true;
  }

  unregister(): void {
    if (this.drain) registered.delete(this.drain);
    if (registered.size > 0 || !isListening) return;
    process.off(SIGNAL, onSignal);
    isListening = false;
  }
}

function onSignal(): void {
  if (process.listenerCount(SIGNAL) > 1) return;
  void Promise.allSettled([...registered].map((drain) => drain())).then(() => {
    registered.clear();
    process.off(SIGNAL, onSignal);
    isListening = false;
    process.kill(process.pid, SIGNAL);
    // Still running: the kernel ignores the default action of a signal for PID 1 of a container. A listener that was
    // added meanwhile is left to do what it wants.
    setImmediate(() => {
      if (process.listenerCount(SIGNAL) === 0) process.exit(EXIT_CODE);
    });
  });
}
