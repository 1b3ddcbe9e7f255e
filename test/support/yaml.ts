/** What of YAML a manifest is made of. */
export type Yaml = string | number | boolean | null | Yaml[] | { [key: string]: Yaml };

interface Line {
  readonly number: number;
  readonly indent: number;
  readonly text: string;
}

/**
 * Reads block mappings, block sequences, flow sequences of scalars, quoted and plain scalars, comments and several
 * documents, which is all that a Kubernetes manifest needs. Everything else is an error, and so is what a mistake looks
 * like: a tab, an odd indentation, a key twice, a line that is neither an entry nor a key.
 */
export function parseYaml(text: string): Yaml[] {
  const documents: Line[][] = [[]];
  for (const [index, raw] of text.split('\n').entries()) {
    if (raw.includes('\t')) throw new YamlError(index + 1, 'a tab');
    if (raw.trim() === '---') documents.push([]);
    const content = withoutComment(raw);
    if (content.trim() === '' || raw.trim() === '---') continue;
    const indent = content.length - content.trimStart().length;
    if (indent % 2 === 1) throw new YamlError(index + 1, `an indentation of ${indent}`);
    documents.at(-1)?.push({ number: index + 1, indent, text: content.trim() });
  }
  return documents.filter((lines) => lines.length > 0).map((lines) => new Reader(lines).document());
}

export class YamlError extends Error {
  constructor(
    readonly line: number,
    readonly what: string,
  ) {
    super(`line ${line}: ${what}`);
    this.name = 'YamlError';
  }
}

class Reader {
  private next = 0;

  constructor(private readonly lines: Line[]) {}

  document(): Yaml {
    const value = this.value(0);
    const left = this.lines[this.next];
    if (left) throw new YamlError(left.number, `not expected here: ${left.text}`);
    return value;
  }

  private value(indent: number): Yaml {
    const line = this.lines[this.next];
    if (!line || line.indent < indent) return null;
    if (line.indent > indent)
      throw new YamlError(line.number, `an indentation of ${line.indent}, not ${indent}`);
    return line.text.startsWith('- ') ? this.sequence(indent) : this.mapping(indent);
  }

  private sequence(indent: number): Yaml[] {
    const entries: Yaml[] = [];
    for (let line = this.lines[this.next]; line?.indent === indent; line = this.lines[this.next]) {
      if (!line.text.startsWith('- ')) break;
      // What follows the dash is the first line of the entry, two further in.
      const first = { ...line, indent: indent + 2, text: line.text.slice(2).trim() };
      if (KEY.test(first.text)) {
        this.lines[this.next] = first;
        entries.push(this.mapping(indent + 2));
      } else {
        this.next++;
        entries.push(scalar(first.text, first.number));
      }
    }
    return entries;
  }

  private mapping(indent: number): { [key: string]: Yaml } {
    const entries: { [key: string]: Yaml } = {};
    for (let line = this.lines[this.next]; line?.indent === indent; line = this.lines[this.next]) {
      if (line.text.startsWith('- ')) break;
      const [, key, rest = ''] = KEY.exec(line.text) ?? [];
      if (key === undefined) throw new YamlError(line.number, `no key: ${line.text}`);
      if (Object.hasOwn(entries, key)) throw new YamlError(line.number, `${key} is there twice`);
      this.next++;
      if (rest !== '') {
        entries[key] = scalar(rest, line.number);
        continue;
      }
      const below = this.lines[this.next];
      const isSequenceBeside = below?.indent === indent && below.text.startsWith('- ');
      entries[key] = this.value(isSequenceBeside ? indent : indent + 2);
    }
    return entries;
  }
}

const KEY = /^([\w./-]+):(?: +(.+))?$/;

function withoutComment(line: string): string {
  const [before] = /^(?:[^"'#]|"[^"]*"|'[^']*'|(?<=\S)#)*/.exec(line) ?? [''];
  return before.trimEnd();
}

function scalar(text: string, line: number): Yaml {
  if (/^\[.*\]$/.test(text)) {
    const inside = text.slice(1, -1).trim();
    return inside === '' ? [] : inside.split(/ *, */).map((entry) => scalar(entry, line));
  }
  if (/^(["']).*\1$/.test(text)) return text.slice(1, -1);
  if (/^[[{&*!|>%@`"']/.test(text)) throw new YamlError(line, `not read here: ${text}`);
  if (/: |:$/.test(text)) throw new YamlError(line, `a key in a value: ${text}`);
  if (/^-?\d+(\.\d+)?$/.test(text)) return Number(text);
  if (text === 'true' || text === 'false') return text === 'true';
  return text === 'null' || text === '~' ? null : text;
}
