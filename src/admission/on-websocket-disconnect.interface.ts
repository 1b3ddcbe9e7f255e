/**
 * A gateway's hook for the end of a connection, with what it is given on Nest 11 and 12 alike. The platform's own
 * `OnGatewayDisconnect` has a `reason` of type string in the place of the code.
 *
 * It may be asynchronous; where a cleanup or a drain ended the connection, it is waited for within
 * `cleanup.hookTimeoutMs`. What it throws is logged, and ends nothing else.
 *
 * @typeParam T - the client: the `WebSocket` of `ws`
 */
export interface OnWebSocketDisconnect<T = unknown> {
  /**
   * @param code - the close code that the connection ended with, 1006 where there was no closing handshake
   * @param reason - what came with the code; often empty
   */
  handleDisconnect(client: T, code: number, reason: string): unknown;
}
