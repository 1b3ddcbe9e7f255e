export interface Ask {
  readonly prompt: string;
}

export class LanguageModel {
  async answer({ prompt }: Ask): Promise<string> {
    return prompt;
  }
}
