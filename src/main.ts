import { bootstrap } from './reference-app/bootstrap.js';

await bootstrap();
