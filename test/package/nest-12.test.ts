import { tryMajor } from './major.js';

tryMajor(12);
