/** A store as express-session's: one session in which somebody is signed in, one in which nobody is, and one that fails. */
export const store = {
  get(id: string, callback: (error: unknown, session?: { userId?: string } | null) => void): void {
    const sessions: Record<string, { userId?: string }> = {
      'session-of-alice': { userId: 'alice' },
      'signed-out': {},
    };
    setImmediate(() =>
      id === 'broken' ? callback(new Error('store away')) : callback(null, sessions[id] ?? null),
    );
  },
};

export const secret = process.env.SESSION_SECRET ?? '';
