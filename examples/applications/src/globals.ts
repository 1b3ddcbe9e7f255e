import {
  type ArgumentsHost,
  type CallHandler,
  type CanActivate,
  Catch,
  type ExceptionFilter,
  type ExecutionContext,
  ForbiddenException,
  HttpException,
  Injectable,
  Module,
  type NestInterceptor,
  type OnApplicationShutdown,
  type PipeTransform,
} from '@nestjs/common';
import { APP_FILTER, APP_GUARD, APP_INTERCEPTOR, APP_PIPE, NestFactory } from '@nestjs/core';
import { tap } from 'rxjs';
import { EchoGateway, HelloController } from './echo.js';
import { manager, start } from './start.js';

/** How often each of them ran, by the kind of call; said when the application ends. */
const calls: Record<string, number> = {};
const count = (name: string) => {
  calls[name] = (calls[name] ?? 0) + 1;
};

@Injectable()
class GlobalGuard implements CanActivate {
  canActivate(context: ExecutionContext): boolean {
    count(`${context.getType()} guard`);
    if (context.getType() === 'ws') return context.switchToWs().getData() !== 'refuse me';
    const { headers } = context.switchToHttp().getRequest<{ headers: Record<string, string> }>();
    if (headers['x-banned']) throw new ForbiddenException();
    return true;
  }
}

@Injectable()
class GlobalPipe implements PipeTransform {
  transform(value: unknown): unknown {
    count('pipe');
    return value;
  }
}

@Injectable()
class GlobalInterceptor implements NestInterceptor {
  intercept(context: ExecutionContext, next: CallHandler) {
    return next.handle().pipe(tap(() => count(`${context.getType()} interceptor`)));
  }
}

/** What an HTTP-minded filter does: it takes for granted that there is a response. */
@Catch(HttpException)
class GlobalFilter implements ExceptionFilter {
  catch(error: HttpException, host: ArgumentsHost): void {
    count(`${host.getType()} filter`);
    const response = host.switchToHttp().getResponse();
    response.status(error.getStatus()).json({ filtered: error.getStatus() });
  }
}

@Injectable()
class OperatorGuard implements CanActivate {
  canActivate(context: ExecutionContext): boolean {
    const { headers } = context.switchToHttp().getRequest<{ headers: Record<string, string> }>();
    return headers.authorization === 'Bearer operator';
  }
}

@Injectable()
class Report implements OnApplicationShutdown {
  onApplicationShutdown(): void {
    console.log(`calls ${JSON.stringify(calls)}`);
  }
}

@Module({
  imports: manager({}, { health: true, admin: { guards: [OperatorGuard] } }),
  controllers: [HelloController],
  providers: [
    EchoGateway,
    Report,
    { provide: APP_GUARD, useClass: GlobalGuard },
    { provide: APP_PIPE, useClass: GlobalPipe },
    { provide: APP_INTERCEPTOR, useClass: GlobalInterceptor },
    { provide: APP_FILTER, useClass: GlobalFilter },
  ],
})
class AppModule {}

async function bootstrap(): Promise<void> {
  const app = await NestFactory.create(AppModule);
  app.setGlobalPrefix('api');
  await start(app);
}

void bootstrap();
