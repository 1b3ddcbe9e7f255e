import { Injectable } from '@nestjs/common';
import { concatMap, delay, from, type Observable, of } from 'rxjs';

const TOKEN_MS = 40;

/** Stands in for a language model: offline, and slow enough to be seen. It says back what it was asked. */
@Injectable()
export class LanguageModel {
  /** The answer, word by word. */
  answer(prompt: string): Observable<string> {
    const words = `You asked: ${prompt} I am a stand-in, so all I can do is to say it again, one word at a time.`;
    return from(words.split(/(?<=\s)/)).pipe(concatMap((word) => of(word).pipe(delay(TOKEN_MS))));
  }
}
