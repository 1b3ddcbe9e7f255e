import { execFile } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

export const ROOT = fileURLToPath(new URL('../..', import.meta.url));
/** Files that a page leaves to its reader, by project; those of `nest-new` are there before any other. */
const LEFT_TO_THE_READER = join(ROOT, 'test/support/docs');
const TSC = join(ROOT, 'node_modules/typescript/bin/tsc');

/** A fenced block of a page. */
export interface Block {
  /** From the root of the repository. */
  readonly page: string;
  /** Of the fence; the text begins on the next one. */
  readonly line: number;
  /** The first word of the info string, and the rest of it. */
  readonly language: string;
  readonly info: string;
  readonly text: string;
  /** The application it belongs to: of the last `<!-- project: name -->` before it, or else called as the page. */
  readonly project: string;
}

/** Blocks that make one application, as files. `<!-- project: name on other -->` begins with the files of another. */
export interface Project {
  readonly name: string;
  readonly base: string | undefined;
  readonly files: ReadonlyMap<string, Block[]>;
}

/** The pages whose blocks are tested: those beside the README and everything in docs/, from the root of the repository. */
export function pages(): string[] {
  const inDocs = readdirSync(join(ROOT, 'docs'), { recursive: true }) as string[];
  const files = [...readdirSync(ROOT), ...inDocs.map((file) => `docs/${file}`)];
  return files.filter((file) => file.endsWith('.md')).sort();
}

export function read(page: string): string {
  return readFileSync(join(ROOT, page), 'utf8');
}

interface Fence {
  readonly marks: string;
  readonly indent: number;
  readonly line: number;
  readonly info: string;
}

/** The fenced blocks of a text, in order, and which project is based on which. */
export function blocksOf(page: string, text = read(page)): { blocks: Block[]; bases: Map<string, string> } {
  const blocks: Block[] = [];
  const bases = new Map<string, string>();
  let project = page.replace(/\.md$/, '');
  let fence: Fence | undefined;
  let inside: string[] = [];
  for (const [index, line] of text.split('\n').entries()) {
    const [, indent = '', marks = '', info = ''] = /^( *)(`{3,})(.*)$/.exec(line) ?? [];
    if (!fence) {
      const [, name, base] = /^<!-- project: (\S+)(?: on (\S+))? -->$/.exec(line) ?? [];
      if (name) project = name;
      if (name && base) bases.set(name, base);
      if (marks) fence = { marks, indent: indent.length, line: index + 1, info: info.trim() };
      inside = [];
    } else if (marks === fence.marks && info.trim() === '') {
      const [language = '', ...rest] = fence.info.split(/\s+/);
      blocks.push({
        page,
        line: fence.line,
        language,
        info: rest.join(' '),
        text: inside.join('\n'),
        project,
      });
      fence = undefined;
    } else {
      inside.push(line.slice(fence.indent));
    }
  }
  if (fence) throw new Error(`${page}:${fence.line}: the block has no end`);
  return { blocks, bases };
}

/**
 * The TypeScript of all pages, as files. A block that begins with `// path/to/file.ts` is that file of its project, one
 * whose info string says `continued` goes on where the one before it stopped, and any other is a file by itself.
 */
export function projects(): Map<string, Project> {
  const found = new Map<string, { name: string; base: string | undefined; files: Map<string, Block[]> }>();
  for (const page of pages()) {
    const { blocks, bases } = blocksOf(page);
    let last: Block[] | undefined;
    for (const block of blocks.filter(({ language }) => language === 'ts')) {
      const project = found.get(block.project) ?? {
        name: block.project,
        base: bases.get(block.project),
        files: new Map<string, Block[]>(),
      };
      found.set(block.project, project);
      if (block.info === 'continued') {
        if (!last) throw new Error(`${page}:${block.line}: there is nothing to be continued`);
        last.push(block);
        continue;
      }
      const [, named] = /^\/\/ (\S+\.ts)$/m.exec(block.text.split('\n', 1)[0] ?? '') ?? [];
      const file = named ?? `line-${block.line}.ts`;
      if (project.files.has(file)) {
        throw new Error(
          `${page}:${block.line}: ${file} is there already; begin a project: <!-- project: name -->`,
        );
      }
      last = [block];
      project.files.set(file, last);
    }
  }
  for (const { name, base } of found.values()) {
    if (base && !found.has(base)) throw new Error(`project ${name}: there is no project ${base}`);
  }
  return found;
}

/** All files of a project, those of the projects that it is based on among them. */
function filesOf(all: ReadonlyMap<string, Project>, name: string): Map<string, Block[]> {
  const project = all.get(name);
  if (!project) throw new Error(`there is no project ${name}`);
  return new Map([...(project.base ? filesOf(all, project.base) : []), ...project.files]);
}

/** What the compiler has against a file. */
export interface Complaint {
  /** `docs/page.md:line`, where the file comes from a page. */
  readonly where: string;
  readonly what: string;
}

const COMPILER_OPTIONS = {
  // As `nest new` has it, and strict.
  module: 'nodenext',
  moduleResolution: 'nodenext',
  resolvePackageJsonExports: true,
  esModuleInterop: true,
  isolatedModules: true,
  experimentalDecorators: true,
  emitDecoratorMetadata: true,
  useDefineForClassFields: false,
  target: 'ES2023',
  types: ['node'],
  strict: true,
  noImplicitReturns: true,
  noFallthroughCasesInSwitch: true,
  skipLibCheck: true,
};

/** The applications of the pages, as files in a directory of the repository's root, so that it is what they import. */
export class WrittenProjects {
  private readonly directory = mkdtempSync(join(ROOT, '.docs-'));
  private readonly origins = new Map<string, readonly Block[]>();

  constructor(all: ReadonlyMap<string, Project> = projects(), names: Iterable<string> = all.keys()) {
    for (const name of names) {
      const home = this.home(name);
      for (const given of ['nest-new', name]) {
        const from = join(LEFT_TO_THE_READER, given);
        if (existsSync(from)) cpSync(from, home, { recursive: true });
      }
      for (const [file, blocks] of filesOf(all, name)) {
        const path = join(home, file);
        mkdirSync(dirname(path), { recursive: true });
        writeFileSync(path, blocks.map(({ text }) => `${text}\n`).join(''));
        this.origins.set(path, blocks);
      }
    }
  }

  /** Where a project's files are. */
  home(name: string): string {
    return join(this.directory, name.replaceAll('/', '-'));
  }

  /** Checks the types of all against the module's sources. */
  check(): Promise<Complaint[]> {
    return this.compile({
      noEmit: true,
      paths: {
        'nestjs-websocket-manager': ['../src/index.ts'],
        'nestjs-websocket-manager/testing': ['../src/testing/index.ts'],
      },
    });
  }

  /** Compiles all beside their sources, against the module as it is built. */
  build(): Promise<Complaint[]> {
    return this.compile({});
  }

  remove(): void {
    rmSync(this.directory, { recursive: true, force: true });
  }

  private compile(options: object): Promise<Complaint[]> {
    const project = join(this.directory, 'tsconfig.json');
    const compilerOptions = { ...COMPILER_OPTIONS, ...options };
    writeFileSync(project, JSON.stringify({ compilerOptions, include: ['**/*.ts'] }));
    return new Promise((done, fail) => {
      execFile(
        process.execPath,
        [TSC, '-p', project, '--pretty', 'false'],
        { cwd: ROOT },
        (error, stdout, stderr) => {
          const complaints = this.complaintsIn(stdout);
          if (error && complaints.length === 0) fail(new Error(`tsc failed: ${stdout}${stderr}`));
          else done(complaints);
        },
      );
    });
  }

  private complaintsIn(output: string): Complaint[] {
    const complaints = new Map<string, Complaint>();
    for (const line of output.split('\n')) {
      const [, file, at, what] = /^(\S.*?)\((\d+),\d+\): (error .*)$/.exec(line) ?? [];
      const global = file ? undefined : /^error .*$/.exec(line)?.[0];
      if (global) complaints.set(global, { where: 'tsc', what: global });
      if (!file || !at || !what) continue;
      const where = this.originOf(resolve(ROOT, file), Number(at));
      // A file is checked once for each project that is based on its own.
      complaints.set(`${where} ${what}`, { where, what });
    }
    return [...complaints.values()];
  }

  private originOf(path: string, line: number): string {
    let left = line;
    for (const block of this.origins.get(path) ?? []) {
      const lines = block.text.split('\n').length;
      if (left <= lines) return `${block.page}:${block.line + left}`;
      left -= lines;
    }
    return `${relative(ROOT, path)}:${line}`;
  }
}

/** The anchors of a page's headings, as GitHub makes them. */
export function anchorsOf(text: string): Set<string> {
  const anchors = new Set<string>();
  let isFenced = false;
  for (const line of text.split('\n')) {
    if (/^ *`{3,}/.test(line)) isFenced = !isFenced;
    const [, heading] = isFenced ? [] : (/^#{1,6} +(.*?) *#*$/.exec(line) ?? []);
    if (heading === undefined) continue;
    const words = heading
      .replace(/\[([^\]]*)\]\([^)]*\)/g, '$1')
      .toLowerCase()
      .replace(/[^\p{L}\p{N}\p{M}_ -]/gu, '')
      .replaceAll(' ', '-');
    let anchor = words;
    for (let again = 1; anchors.has(anchor); again++) anchor = `${words}-${again}`;
    anchors.add(anchor);
  }
  return anchors;
}

/** A link of a page, outside of code. */
export interface Link {
  readonly line: number;
  readonly target: string;
}

export function linksOf(text: string): Link[] {
  const links: Link[] = [];
  let isFenced = false;
  for (const [index, line] of text.split('\n').entries()) {
    if (/^ *`{3,}/.test(line)) isFenced = !isFenced;
    if (isFenced) continue;
    const withoutCode = line.replace(/(`+)(?:(?!\1).)*\1/g, '``');
    for (const [, target] of withoutCode.matchAll(/\]\(([^)\s]+)\)/g)) {
      if (target) links.push({ line: index + 1, target });
    }
  }
  return links;
}
