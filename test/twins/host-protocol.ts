import type { Script } from './generated.js';

/** A program under the plain WsAdapter, or under the module. */
export type Way = 'platform' | 'module';

export type ToHost =
  | {
      readonly type: 'start';
      readonly id: number;
      readonly name: string;
      readonly script?: Script | undefined;
    }
  /** Answered when the program has noted nothing for a time. */
  | { readonly type: 'quiet'; readonly id: number; readonly ms: number }
  | { readonly type: 'finish'; readonly id: number };

export type FromHost =
  | { readonly type: 'ready' }
  | { readonly type: 'started'; readonly id: number; readonly port: number }
  | { readonly type: 'quiet'; readonly id: number }
  | {
      readonly type: 'finished';
      readonly id: number;
      readonly server: readonly string[];
      readonly log: readonly string[];
    }
  /** The program could not be run at all. */
  | { readonly type: 'failed'; readonly id: number; readonly error: string };
