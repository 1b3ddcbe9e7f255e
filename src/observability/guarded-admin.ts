import { type CanActivate, Controller, type ModuleMetadata, type Type, UseGuards } from '@nestjs/common';
import { WebSocketManagerOptionsError } from '../options/resolve-options.js';
import { AdminController } from './admin.controller.js';

/** Switches the operator's API on. */
export interface AdminOptions {
  /** Who may use it: guards of the application, at least one. */
  readonly guards: readonly (Type<CanActivate> | CanActivate)[];
  /** Modules that the guards need. */
  readonly imports?: ModuleMetadata['imports'];
  /** Providers that the guards need. */
  readonly providers?: ModuleMetadata['providers'];
}

const ADMIN_PATH = 'websocket-managers';

/**
 * The operator's API behind the application's guards, as parts of a module.
 * Throws {@link WebSocketManagerOptionsError} when there is no guard: it does not boot unguarded.
 */
export function guardedAdmin({
  guards,
  imports = [],
  providers = [],
}: AdminOptions): Required<Pick<ModuleMetadata, 'imports' | 'providers' | 'controllers'>> {
  if (!Array.isArray(guards) || guards.length === 0) {
    throw new WebSocketManagerOptionsError('admin.guards', guards, 'a list of at least one guard');
  }
  // A class of its own for each application: two in one process keep their guards apart.
  class GuardedAdminController extends AdminController {}
  Controller(ADMIN_PATH)(GuardedAdminController);
  UseGuards(...guards)(GuardedAdminController);
  return { imports, providers, controllers: [GuardedAdminController] };
}
