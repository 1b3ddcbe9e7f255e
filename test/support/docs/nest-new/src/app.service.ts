import { Injectable } from '@nestjs/common';

/** As `nest new` writes it. */
@Injectable()
export class AppService {
  getHello(): string {
    return 'Hello World!';
  }
}
