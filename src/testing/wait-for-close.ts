/** How a WebSocket ended. */
export interface WebSocketClosed {
  readonly code: number;
  readonly reason: string;
}

type OnClose = (event: WebSocketClosed) => void;
type OnError = (event: { readonly message?: string }) => void;

/** What {@link waitForClose} needs of a client: `ws`, the browser's WebSocket and Node's all have it. */
export interface ClosableWebSocket {
  readonly readyState: number;
  addEventListener(type: 'close', listener: OnClose): void;
  addEventListener(type: 'error', listener: OnError): void;
  removeEventListener(type: 'close', listener: OnClose): void;
  removeEventListener(type: 'error', listener: OnError): void;
}

const CLOSED = 3;

/**
 * Resolves with the code and reason that a client's WebSocket is closed with.
 * Rejects if it is closed already (nobody can say how), or not closed within `timeoutMs`. While it waits, an error
 * of the socket is no uncaught one.
 *
 * @param timeoutMs milliseconds. Default: 5,000.
 *
 * @example
 * ```ts
 * const closed = waitForClose(socket);
 * webSockets.disconnectUser('alice'); // the WebSocketManagerService
 * expect(await closed).toEqual({ code: 4520, reason: 'terminated_by_admin' });
 * ```
 */
export function waitForClose(socket: ClosableWebSocket, timeoutMs = 5_000): Promise<WebSocketClosed> {
  if (socket.readyState === CLOSED) {
    return Promise.reject(new Error('waitForClose: the socket was closed before; call it earlier'));
  }
  return new Promise((resolve, reject) => {
    let lastError = '';
    const onError: OnError = ({ message }) => {
      lastError = `; last error: ${message ?? 'unknown'}`;
    };
    const onClose: OnClose = ({ code, reason }) => {
      stop();
      resolve({ code, reason: String(reason) });
    };
    const timer = setTimeout(() => {
      stop();
      reject(
        new Error(
          `waitForClose: not closed within ${timeoutMs} ms (readyState ${socket.readyState}${lastError})`,
        ),
      );
    }, timeoutMs);
    const stop = () => {
      clearTimeout(timer);
      socket.removeEventListener('close', onClose);
      socket.removeEventListener('error', onError);
    };
    socket.addEventListener('error', onError);
    socket.addEventListener('close', onClose);
  });
}
