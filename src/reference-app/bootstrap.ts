import 'reflect-metadata';
import { Logger } from '@nestjs/common';
import { ConfigService } from '@nestjs/config';
import { NestFactory } from '@nestjs/core';

/** Starts the reference application. What keeps it from starting is said in one line. */
export async function bootstrap(): Promise<void> {
  try {
    // The environment is checked while the module is being loaded.
    const { AppModule } = await import('./app.module.js');
    const app = await NestFactory.create(AppModule, {
      abortOnError: false,
      // A connection that never asks for anything must not keep the process from ending.
      forceCloseConnections: true,
      logger: ['log', 'warn', 'error'],
    });
    app.enableShutdownHooks();
    const config = app.get(ConfigService);
    await app.listen(config.getOrThrow<number>('PORT'), config.getOrThrow<string>('HOST'));
    warnOfShortSecret(config.get<string>('WSM_JWT_SECRET'));
    new Logger('Server').log(`Listening on ${await app.getUrl()}`);
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
    process.exit(1);
  }
}

/** RFC 7518, 3.2: a key for HS256 has at least the 256 bits of its hash. */
function warnOfShortSecret(secret: string | undefined): void {
  const LEAST_BYTES = 32;
  if (!secret || Buffer.byteLength(secret) >= LEAST_BYTES) return;
  new Logger('Server').warn(
    `WSM_JWT_SECRET is shorter than ${LEAST_BYTES} bytes: too short to keep anything secret`,
  );
}
