import { tryMajor } from './major.js';

tryMajor(11);
