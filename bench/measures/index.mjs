import { door } from './door.mjs';
import { echo, single } from './echo.mjs';
import { emergency, frozen } from './emergency.mjs';
import { handshake, handshakeCalm, storm } from './handshake.mjs';
import { beside, heartbeat, talkers } from './heartbeat.mjs';
import { held, idle } from './idle.mjs';
import { toUser } from './to-user.mjs';

/** In the order in which they are run and told of. */
export const MEASURES = [
  door,
  held,
  idle,
  echo,
  single,
  storm,
  handshake,
  handshakeCalm,
  heartbeat,
  beside,
  talkers,
  frozen,
  emergency,
  toUser,
];
