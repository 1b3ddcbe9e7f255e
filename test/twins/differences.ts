/**
 * In what the module is meant to differ from the platform, and why. A program that shows one of them states what the
 * module does instead; every other difference between the twins fails.
 */
export const DIFFERENCES = {
  'hooks do not end the process':
    'A throw or rejection in handleConnection or handleDisconnect ends the process on the platform. The module logs it and closes the connection with 1011 (SPEC.md section 6, promise 7). A WsException is answered with an exception and the connection stays open.',
  'listeners do not end the process':
    "As for hooks: what a listener of the client's throws or rejects with is logged, and closes the connection with 1011.",
  'answers do not end the process':
    'On the platform an answer that JSON.stringify refuses ends the process. The module logs it and sends nothing.',
  'messages wait for handleConnection':
    'No handler runs before an asynchronous handleConnection has settled (SPEC.md section 5): messages are neither lost nor reordered across the admission. Listeners of the application are not delayed.',
  'the reason of a close':
    'handleDisconnect gets the code and the reason on every version of Nest; the platform passes the code, or nothing.',
  'fewer listeners':
    'The module has one listener for messages and one for the close on each socket, where the platform has three and one for errors: memory, and protocol errors of clients are not logged.',
  'errors of clients are not logged':
    'The platform logs each protocol error of each client, which is a way to fill the log.',
  'an answer overtakes a rejection':
    'Of two messages in one read, the answer to the second may come before the exception that the rejected promise of the first becomes: the module takes fewer microtasks from a handler to its answer.',
  'methods of a subclass':
    'The methods that the module overrides may name fewer parameters: ping.length is 0.',
  'a close that the application emits':
    "On the platform the handlers of a client stop at any 'close' event, in the module with the connection.",
  'the size of a message': 'limits.maxPayloadBytes is 1 MiB; the platform accepts 100 MiB.',
  'a path without a gateway':
    'The module responds 404 where the platform destroys the socket without an answer (SPEC.md section 5).',
  'an orderly shutdown':
    'Clients get ws:closing and 1012 where the platform destroys their sockets (SPEC.md section 8).',
} as const;

export type DifferenceName = keyof typeof DIFFERENCES;
