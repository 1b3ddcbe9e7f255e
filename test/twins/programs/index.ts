import type { Program } from '../program.js';
import { closing } from './closing.js';
import { gateways } from './gateways.js';
import { hooks } from './hooks.js';
import { listeners } from './listeners.js';
import { messages } from './messages.js';
import { pausing } from './pausing.js';
import { processes } from './processes.js';
import { properties } from './properties.js';
import { sends } from './sends.js';

/** All programs that are written by hand. */
export const programs: readonly Program[] = [
  ...sends,
  ...closing,
  ...pausing,
  ...listeners,
  ...properties,
  ...hooks,
  ...messages,
  ...gateways,
  ...processes,
];
