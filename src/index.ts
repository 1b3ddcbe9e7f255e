export { CurrentManager, managerOf } from './admission/current-manager.decorator.js';
export { LimitFunctionError, ManagerLimitError, NodeUnavailableError } from './admission/errors.js';
export { connectionOf } from './admission/managed-websocket.js';
export type { OnWebSocketDisconnect } from './admission/on-websocket-disconnect.interface.js';
export {
  type Admitted,
  type Refused,
  WebSocketManagerFactory,
} from './admission/websocket-manager.factory.js';
export { WebSocketManagerService } from './admission/websocket-manager.service.js';
export { CircuitBreakerService } from './cleanup/circuit-breaker.service.js';
export { CleanupService, type ManualCleanup } from './cleanup/cleanup.service.js';
export type { CleanupReport } from './cleanup/cleanup-run.js';
export { SWEEP_INTERVAL } from './cleanup/cleanup-scheduler.js';
export { Clock, SystemClock } from './clock/clock.js';
export {
  CLOSE_REASONS,
  type CloseReason,
  type ClosingNotice,
  type DisconnectReason,
  type EndReason,
  type RejectionReason,
  WsCloseCode,
} from './events/close-reason.js';
export * from './events/vocabulary.js';
export type * from './events/websocket-manager-event.js';
export {
  type ConnectionDetector,
  type DetectorOpinion,
  type DetectorView,
  WebSocketDetector,
} from './liveness/connection-detector.interface.js';
export { ZombieDetectorService } from './liveness/zombie-detector.service.js';
export type { Connection } from './manager/connection.js';
export type { CloseHook, Manager } from './manager/manager.js';
export { AuditService } from './observability/audit.service.js';
export type { AdminOptions } from './observability/guarded-admin.js';
export type { MetricsOptions, MetricsRegistry } from './observability/metrics.service.js';
export {
  type WebSocketHealthDetail,
  type WebSocketHealthIndication,
  type WebSocketHealthReason,
  WebSocketHealthService,
} from './observability/websocket-health.service.js';
export { resolveOptions, WebSocketManagerOptionsError } from './options/resolve-options.js';
export type {
  SlotHolder,
  SlotReply,
  SlotRequest,
  SlotStore,
  SlotStoreHost,
} from './options/slot-store.interface.js';
export {
  type CheckedUserContext,
  InvalidUserContextError,
  type UserContext,
} from './options/user-context.js';
export type * from './options/websocket-manager-options.interface.js';
export { MemorySlotStore } from './store/memory-slot-store.js';
export { WebSocketManagerModule, type WebSocketManagerModuleExtras } from './websocket-manager.module.js';
