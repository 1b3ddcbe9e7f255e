export { FakeClock, type FakeClockOptions } from './fake-clock.js';
export { type FakePeer, FakeSocket } from './fake-socket.js';
export {
  type OverridableModule,
  overrideWebSocketManager,
  type WebSocketManagerOverrides,
} from './override-websocket-manager.js';
export { type ClosableWebSocket, type WebSocketClosed, waitForClose } from './wait-for-close.js';
