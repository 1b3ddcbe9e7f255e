import request, { type Test } from 'supertest';
import { ADMIN_TOKEN, type Server } from './server.js';

export interface UserView {
  readonly userId: string;
  readonly limit: number;
  readonly pressure: number;
  readonly breaker: string;
  readonly managers: readonly {
    readonly id: string;
    readonly sessionKey: string | null;
    readonly status: string;
    readonly busy: boolean;
    readonly connections: readonly {
      readonly id: string;
      readonly state: string;
      readonly suspectSince?: string;
    }[];
  }[];
}

/** Somebody with the token, at the operator's API. */
export class Operator {
  constructor(private readonly server: Pick<Server, 'url'>) {}

  get(path: string): Test {
    return signed(request(this.server.url).get(`/websocket-managers/api/${path}`));
  }

  post(path: string, body?: object): Test {
    return signed(request(this.server.url).post(`/websocket-managers/api/${path}`).send(body));
  }

  delete(path: string): Test {
    return signed(request(this.server.url).delete(`/websocket-managers/api/${path}`));
  }

  async user(userId: string): Promise<UserView> {
    const { body } = await this.get(`users/${encodeURIComponent(userId)}`).expect(200);
    return body as UserView;
  }

  /** The ids of the user's managers. */
  async managersOf(userId: string): Promise<string[]> {
    return (await this.user(userId)).managers.map(({ id }) => id);
  }
}

function signed(test: Test): Test {
  return test.set('Authorization', `Bearer ${ADMIN_TOKEN}`);
}
