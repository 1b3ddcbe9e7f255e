import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { parseAllDocuments, YAMLParseError } from 'yaml';
import { CLOSE_REASONS, resolveOptions } from '../../src/index.js';
import {
  anchorsOf,
  type Block,
  blocksOf,
  linksOf,
  pages,
  ROOT,
  read,
  WrittenProjects,
} from '../support/docs.js';

// Every failure begins with the page and the line, as an editor can jump to.
type Complaint = string;

const allPages = pages();
const blocks = allPages.flatMap((page) => blocksOf(page).blocks);
const packageJson = JSON.parse(read('package.json')) as {
  scripts: Record<string, string>;
  peerDependencies: Record<string, string>;
  devDependencies: Record<string, string>;
};

const at = ({ page, line }: Block, offset = 0) => `${page}:${line + offset}`;
const of = (...languages: string[]) => blocks.filter(({ language }) => languages.includes(language));

describe('the blocks of the pages', () => {
  it('are of a kind that is tested here, or read by people only', () => {
    const known = ['ts', 'json', 'yaml', 'sh', 'nginx', 'text'];
    const unknown = blocks.filter(({ language }) => !known.includes(language));
    expect(unknown.map((block) => `${at(block)}: a block of ${block.language || 'nothing'}`)).toEqual([]);
    expect(of('ts').length).toBeGreaterThan(20);
  });

  it('compile, where they are TypeScript', { timeout: 120_000 }, async () => {
    const written = new WrittenProjects();
    onTestFinished(() => written.remove());
    const complaints = await written.check();
    expect(complaints.map(({ where, what }) => `${where}: ${what}`)).toEqual([]);
  });

  it('parse, where they are JSON', () => {
    const complaints = of('json').flatMap((block): Complaint[] => {
      try {
        JSON.parse(block.text);
        return [];
      } catch (error) {
        return [`${at(block)}: ${(error as Error).message}`];
      }
    });
    expect(complaints).toEqual([]);
  });

  it('parse, where they are YAML', () => {
    const complaints = of('yaml').flatMap((block): Complaint[] => {
      try {
        manifestsIn(block.text);
        return [];
      } catch (error) {
        return [
          `${at(block, error instanceof YAMLParseError ? error.linePos?.[0].line : undefined)}: ${error}`,
        ];
      }
    });
    expect(complaints).toEqual([]);
  });

  it('are closed and end every directive, where they are of nginx', () => {
    const complaints = of('nginx').flatMap((block): Complaint[] => {
      let depth = 0;
      const found = block.text.split('\n').flatMap((raw, index): Complaint[] => {
        const line = raw.replace(/^ *#.*$/, '').trim();
        depth += Number(line.endsWith('{')) - Number(line === '}');
        return line === '' || /[{};]$/.test(line) ? [] : [`${at(block, index + 1)}: no end: ${line}`];
      });
      return depth === 0 ? found : [...found, `${at(block)}: ${depth} more opened than closed`];
    });
    expect(complaints).toEqual([]);
  });

  it('name scripts of package.json only, and tests that are there', () => {
    const complaints = commands().flatMap(({ where, text }): Complaint[] => {
      const [, script] = /\bnpm run ([\w:-]+)/.exec(text) ?? [];
      const missing = script !== undefined && !(script in packageJson.scripts);
      const paths = text.match(/\b(?:test|bench|scripts|dist)\/[\w./-]+/g) ?? [];
      return [
        ...(missing ? [`${where}: no script ${script}`] : []),
        ...paths.filter((path) => !existsSync(join(ROOT, path))).map((path) => `${where}: no file ${path}`),
      ];
    });
    expect(complaints).toEqual([]);
  });

  it('install what this package goes with: a version for each, but for the package itself', () => {
    const ranges = { ...packageJson.devDependencies, ...packageJson.peerDependencies };
    const complaints = commands().flatMap(({ where, text }): Complaint[] => {
      const [, names] = /\bnpm install (?:--save-dev )?(.+?)(?: #.*)?$/.exec(text) ?? [];
      return (names?.split(' ') ?? []).flatMap((named): Complaint[] => {
        if (named === 'nestjs-websocket-manager') return [];
        const [, name = '', major] = /^(@?[^@]+)@(\d+)$/.exec(named) ?? [];
        const range = ranges[name];
        if (major === undefined) return [`${where}: no version: ${named}`];
        const fits = range === undefined || range.split('||').some((part) => majorOf(part) === major);
        return fits ? [] : [`${where}: ${named}, while this package goes with ${range}`];
      });
    });
    expect(complaints).toEqual([]);
  });
});

describe('the text of the pages', () => {
  it('links to files and headings that are there', () => {
    const complaints = allPages.flatMap((page) =>
      linksOf(read(page)).flatMap(({ line, target }): Complaint[] => {
        if (/^[a-z]+:/.test(target)) return [];
        const [path = '', anchor] = target.split('#');
        const file = path === '' ? page : normalize(join(dirname(page), path));
        if (!existsSync(join(ROOT, file))) return [`${page}:${line}: no file ${file}`];
        const isThere = anchor === undefined || anchorsOf(read(file)).has(anchor);
        return isThere ? [] : [`${page}:${line}: no heading #${anchor} in ${file}`];
      }),
    );
    expect(complaints).toEqual([]);
  });

  it('names options that exist', () => {
    const resolved = resolveOptions({ authenticate: () => null }) as unknown as Record<string, object>;
    const sections = Object.keys(resolved).filter((key) => isSection(resolved[key]));
    const named = new RegExp(`\`(${sections.join('|')})\\.(\\w+)`, 'g');
    const complaints = inText(named, ([, section = '', key = '']) => !(key in (resolved[section] as object)));
    expect(complaints).toEqual([]);
  });

  it('names metrics that exist', () => {
    const sources = readdirSync(join(ROOT, 'src/observability')).filter((file) => file.includes('metrics'));
    const source = sources
      .map((file) => readFileSync(join(ROOT, 'src/observability', file), 'utf8'))
      .join('');
    const isThere = (name = '') => new RegExp(`['}]${name}['\`]`).test(source);
    const complaints = inText(/`websocket_manager_([a-z_]+)/g, ([, name]) => !isThere(name));
    expect(complaints).toEqual([]);
  });

  it('names close codes by their own reasons', () => {
    const reasons: Record<string, { code: number | undefined }> = CLOSE_REASONS;
    const complaints = inText(/\b(1\d{3}|4\d{3}) `([a-z_]+)`/g, ([, code, reason = '']) => {
      return String(reasons[reason]?.code) !== code;
    });
    expect(complaints).toEqual([]);
  });
});

describe('the manifests of docs/kubernetes.md', () => {
  let manifests: Yaml[];
  beforeAll(() => {
    manifests = of('yaml')
      .filter(({ page }) => page === 'docs/kubernetes.md')
      .flatMap(({ text }) => manifestsIn(text));
  });
  const ofKind = (kind: string) => manifests.find((manifest) => get(manifest, 'kind') === kind) as Yaml;
  const pod = () => get(ofKind('Deployment'), 'spec', 'template', 'spec');
  const container = () => get(pod(), 'containers', 0);
  const preStop = () => Number(get(container(), 'lifecycle', 'preStop', 'sleep', 'seconds'));
  const { drain } = resolveOptions({ authenticate: () => null });

  it('give a pod the time that the page asks for', () => {
    const slack = 5;
    const grace = Number(get(pod(), 'terminationGracePeriodSeconds'));
    expect(grace).toBeGreaterThanOrEqual(preStop() + drain.timeoutMs / 1_000 + slack);
  });

  it('let the clients of one pod be back before the next one goes', () => {
    const lastBackMs = drain.spreadMs + 500 + 2 * drain.spreadMs;
    const between = Number(get(ofKind('Deployment'), 'spec', 'minReadySeconds'));
    expect(between).toBeGreaterThanOrEqual(preStop() + lastBackMs / 1_000);
  });

  it('ask the routes that there are, on the port that there is', () => {
    const port = get(container(), 'ports', 0, 'name');
    for (const [probe, path] of [
      ['startupProbe', '/health/live'],
      ['livenessProbe', '/health/live'],
      ['readinessProbe', '/health/ready'],
    ] as const) {
      expect(get(container(), probe, 'httpGet')).toEqual({ path, port });
    }
    expect(get(ofKind('Service'), 'spec', 'ports', 0, 'targetPort')).toBe(port);
  });

  it('are about one application', () => {
    const labels = { app: get(ofKind('Deployment'), 'metadata', 'name') };
    const { spec } = ofKind('Deployment') as { spec: Yaml };
    expect(get(spec, 'selector', 'matchLabels')).toEqual(labels);
    expect(get(spec, 'template', 'metadata', 'labels')).toEqual(labels);
    expect(get(ofKind('Service'), 'spec', 'selector')).toEqual(labels);
    expect(get(ofKind('PodDisruptionBudget'), 'spec', 'selector', 'matchLabels')).toEqual(labels);
    expect(get(ofKind('HorizontalPodAutoscaler'), 'spec', 'scaleTargetRef')).toEqual({
      apiVersion: get(ofKind('Deployment'), 'apiVersion'),
      kind: 'Deployment',
      name: labels.app,
    });
  });
});

/** The lines of all `sh` blocks. */
function commands(): { where: string; text: string }[] {
  return of('sh').flatMap((block) =>
    block.text.split('\n').map((text, index) => ({ where: at(block, index + 1), text })),
  );
}

/** Where `pattern` is in a page, if `isWrong`. */
function inText(pattern: RegExp, isWrong: (match: RegExpMatchArray) => boolean): Complaint[] {
  return allPages.flatMap((page) =>
    read(page)
      .split('\n')
      .flatMap((line, index) =>
        [...line.matchAll(pattern)].filter(isWrong).map((match) => `${page}:${index + 1}: ${match[0]}`),
      ),
  );
}

function majorOf(range: string): string | undefined {
  return /(\d+)/.exec(range)?.[1];
}

function isSection(value: unknown): boolean {
  return typeof value === 'object' && value !== null;
}

type Yaml = string | number | boolean | null | Yaml[] | { [key: string]: Yaml };

function manifestsIn(text: string): Yaml[] {
  return parseAllDocuments(text, { strict: true, uniqueKeys: true }).map((document) => {
    for (const problem of [...document.errors, ...document.warnings]) throw problem;
    return document.toJS() as Yaml;
  });
}

function get(value: Yaml | undefined, ...path: (string | number)[]): Yaml | undefined {
  return path.reduce<Yaml | undefined>(
    (inside, key) => (isSection(inside) ? (inside as Record<string | number, Yaml>)[key] : undefined),
    value,
  );
}
