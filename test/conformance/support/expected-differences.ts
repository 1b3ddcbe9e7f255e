import { expect, it } from 'vitest';

/** A difference from the platform that the module makes on purpose. */
export interface ExpectedDifference {
  /** The test file that has the cases. */
  readonly file: 'handshake' | 'socket' | 'process';
  /** The titles of the cases that show it. */
  readonly names: readonly string[];
  readonly reason: string;
  /** What the module does instead: each has to match a line of its transcript. */
  readonly module: readonly RegExp[];
}

/** All of them. A row whose case shows no difference any more fails its test. */
export const EXPECTED_DIFFERENCES: readonly ExpectedDifference[] = [
  {
    file: 'handshake',
    names: [
      ...[
        '/plain/',
        '/Plain',
        '/plain2',
        '/plai',
        '//plain',
        '/%70lain',
        '/plain%20',
        '/plain;a=b',
        '/\\plain',
      ],
      ...['/nowhere', '/', 'http://localhost/nowhere', 'http://[/plain'],
    ].map((target) => `target ${target}?id=ID`),
    reason:
      'SPEC.md section 5: an upgrade that no gateway owns gets 404. The platform ends the connection without a response',
    module: [/HTTP\/1\.1 404 Not Found/, /"reason":"not_found"/, /end of the connection/],
  },
  {
    file: 'handshake',
    names: ['target *'],
    reason: 'the same for a target that is not a path',
    module: [/HTTP\/1\.1 404 Not Found/, /"reason":"not_found"/, /end of the connection/],
  },
  {
    file: 'handshake',
    names: ['target ftp://localhost/plain?id=ID'],
    reason:
      'RFC 6455 4.2.1: the request target is a path, or an absolute HTTP URI. The platform takes any scheme, the module http, https, ws and wss',
    module: [/HTTP\/1\.1 404 Not Found/, /"reason":"not_found"/],
  },
  {
    file: 'handshake',
    names: ['""', '"a b"', '"[::1"', '"localhost:99999"'].map((host) => `Host: ${host}`),
    reason:
      'SPEC.md section 5: a malformed request gets 400 with a JSON body. The platform writes a status line and no head',
    module: [/HTTP\/1\.1 400 Bad Request/, /"reason":"bad_request"/, /end of the connection/],
  },
  {
    file: 'socket',
    names: ['eventNames and listenerCount in handleConnection and later'],
    reason:
      'The platform adds a listener of error to each socket, which logs every protocol error of every client: a way to fill logs. And for each socket three of close, of which one has to be there. See docs/decisions/0005',
    module: [/^error 0$/, /^message 1$/, /^close [12]$/],
  },
  {
    file: 'socket',
    names: ['newListener and removeListener'],
    reason: 'the same: the platform adds more listeners of close',
    module: [/^newListener message$/],
  },
  {
    file: 'socket',
    names: ['emit(exception) by the application'],
    reason:
      "The exception filters of Nest 11 emit what they have to say to a client, and the platform's socket loses it. The module sends it where nothing listens for it",
    module: [/^emit exception returns true$/, /^wire: text fin /],
  },
  {
    file: 'process',
    names: ['listener of message that throws', 'handleConnection that rejects'],
    reason:
      'SPEC.md section 6, promise 7: a throw or a rejection in the application closes its connection with 1011, and never ends the process',
    module: [
      /^wire: text fin .*: 81507b226576656e74223a2277733a636c6f73696e67/,
      /^wire: close 1011 /,
      /^process: goes on$/,
    ],
  },
  {
    file: 'socket',
    names: ['a ping of the heartbeat'],
    reason:
      'The heartbeat: SPEC.md section 3. In all other cases the client leaves its empty pings out of the transcript',
    module: [/^wire: ping fin 0 bytes: 8900$/],
  },
  {
    file: 'socket',
    names: ['options that the gateway does not set'],
    reason:
      'limits.maxPayloadBytes is 1 MiB where `ws` has 100 MiB; and a client that does not answer a close is cut off after 5 s, not 30 s',
    module: [/maxPayload: 1048576\b/, /closeTimeout: 5000\b/],
  },
  {
    file: 'socket',
    names: ['the arguments of handleDisconnect'],
    reason:
      'handleDisconnect gets the code and the reason of the close on Nest 11 and 12. The platform gives the code alone on 12, and nothing on 11',
    module: [/^handleDisconnect \[ 4000, 'bye' \]$/],
  },
];

/**
 * Compares the transcript of the module with the platform's: they are equal, or differ as the table has it.
 * @param about names the rule, and shows both sides
 */
export function expectSame(
  name: string,
  about: string,
  platform: readonly string[],
  module: readonly string[],
): void {
  const difference = EXPECTED_DIFFERENCES.find(({ names }) => names.includes(name));
  const both = [about, `platform:\n  ${platform.join('\n  ')}`, `module:\n  ${module.join('\n  ')}`].join(
    '\n',
  );
  if (!difference) {
    expect(module, `${both}\n`).toEqual(platform);
    return;
  }
  expect(module, `no longer differs; remove its row: ${both}\n`).not.toEqual(platform);
  for (const line of difference.module) {
    expect(
      module.some((one) => line.test(one)),
      `${difference.reason}: no line matches ${line}\n${both}`,
    ).toBe(true);
  }
}

const cases = new Set<string>();

/** Makes a case known to {@link testTable}. */
export function registerCase(title: string): void {
  if (cases.has(title)) throw new Error(`two cases with the title ${title}`);
  cases.add(title);
}

/** That no row is left over from a case that is gone or has another title. */
export function testTable(file: ExpectedDifference['file']): void {
  it('has a case for each row of the table of expected differences', () => {
    const names = EXPECTED_DIFFERENCES.filter((row) => row.file === file).flatMap((row) => row.names);
    expect(names.length).toBeGreaterThan(0);
    expect(names.filter((name) => !cases.has(name))).toEqual([]);
  });
}
