/** One line of the series: the time in seconds, and what was seen then. */
export interface Row {
  readonly s: number;
  readonly connections: number;
  readonly heapMiB: number;
  readonly files: number;
  /** undefined: nobody came in that while. */
  readonly p50Ms: number | undefined;
  readonly p99Ms: number | undefined;
}

export interface Tick {
  readonly s: number;
  readonly name: string;
}

const WIDTH = 960;
const LEFT = 70;
const RIGHT = 20;
const PANEL = 110;
const GAP = 34;
const TOP = 50;

interface Line {
  readonly name: string;
  readonly colour: string;
  readonly of: (row: Row) => number | undefined;
}

interface Panel {
  readonly title: string;
  readonly lines: readonly Line[];
  readonly isLogarithmic?: boolean;
}

const PANELS: readonly Panel[] = [
  {
    title: 'connections',
    lines: [{ name: 'connections', colour: '#1f6feb', of: ({ connections }) => connections }],
  },
  {
    title: 'heap after a collection, MiB',
    lines: [{ name: 'heap', colour: '#8250df', of: ({ heapMiB }) => heapMiB }],
  },
  { title: 'open files', lines: [{ name: 'files', colour: '#1a7f37', of: ({ files }) => files }] },
  {
    title: 'a newcomer is in after, ms (stalls of the server included)',
    isLogarithmic: true,
    lines: [
      { name: 'p50', colour: '#bf8700', of: ({ p50Ms }) => p50Ms },
      { name: 'p99', colour: '#cf222e', of: ({ p99Ms }) => p99Ms },
    ],
  },
];

/** Draws the series: a panel for each quantity over the same time, and a row of ticks for each kind of fault. */
export function plot(rows: readonly Row[], ticks: readonly Tick[], title: string): string {
  const endS = Math.max(1, ...rows.map(({ s }) => s));
  const x = (s: number) => LEFT + ((WIDTH - LEFT - RIGHT) * s) / endS;
  const parts: string[] = [];
  let top = TOP;
  for (const panel of PANELS) {
    parts.push(...panelOf(panel, rows, top, x));
    top += PANEL + GAP;
  }
  const names = [...new Set(ticks.map(({ name }) => name))].sort();
  parts.push(text(LEFT, top - 8, 'faults', 'start', 'bold'));
  for (const name of names) {
    top += 14;
    parts.push(text(LEFT - 6, top, name, 'end', undefined, 9));
    for (const { s } of ticks.filter((tick) => tick.name === name)) {
      parts.push(`<path d="M${at(x(s))} ${top - 9}v9" stroke="#57606a"/>`);
    }
  }
  top += 20;
  for (let minute = 0; minute * 60 <= endS; minute += endS > 600 ? 5 : 0.5)
    parts.push(text(x(minute * 60), top, `${minute} min`, 'middle'));
  const height = top + 14;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" font-family="sans-serif" font-size="11">`,
    `<title>${title}</title>`,
    `<rect width="${WIDTH}" height="${height}" fill="#ffffff"/>`,
    text(LEFT, 22, title, 'start', 'bold', 13),
    ...parts,
    '</svg>',
    '',
  ].join('\n');
}

function panelOf(
  { title, lines, isLogarithmic = false }: Panel,
  rows: readonly Row[],
  top: number,
  x: (s: number) => number,
): string[] {
  const values = lines.flatMap(({ of }) => rows.flatMap((row) => of(row) ?? []));
  const most = Math.max(1, ...values);
  const scale = isLogarithmic ? (value: number) => Math.log10(Math.max(1, value)) : (value: number) => value;
  const roof = isLogarithmic ? Math.ceil(scale(most)) : most * 1.1;
  const y = (value: number) => top + PANEL - (PANEL * scale(value)) / roof;
  const marks = isLogarithmic
    ? Array.from({ length: roof + 1 }, (_, power) => 10 ** power)
    : [0, 0.5, 1].map((share) => most * share);
  return [
    text(LEFT, top - 6, title, 'start', 'bold'),
    ...marks.flatMap((mark) => [
      `<path d="M${LEFT} ${at(y(mark))}H${WIDTH - RIGHT}" stroke="#d0d7de"/>`,
      text(LEFT - 6, y(mark) + 4, shown(mark), 'end'),
    ]),
    ...lines.map(({ colour, of }) => {
      const points = rows.flatMap((row) => {
        const value = of(row);
        return value === undefined ? [] : [`${at(x(row.s))},${at(y(value))}`];
      });
      return `<polyline points="${points.join(' ')}" fill="none" stroke="${colour}" stroke-width="1.3"/>`;
    }),
    ...(lines.length < 2
      ? []
      : lines.map(({ name, colour }, i) =>
          text(WIDTH - RIGHT - 30 * (lines.length - 1 - i), top - 6, name, 'end', 'bold', 11, colour),
        )),
  ];
}

const at = (value: number) => value.toFixed(1);
const shown = (value: number) => (value >= 10 || value === 0 ? value.toFixed(0) : value.toFixed(1));

function text(
  x: number,
  y: number,
  words: string,
  anchor: 'start' | 'middle' | 'end',
  weight = 'normal',
  size = 11,
  colour = '#24292f',
): string {
  return `<text x="${at(x)}" y="${at(y)}" text-anchor="${anchor}" font-weight="${weight}" font-size="${size}" fill="${colour}">${words}</text>`;
}
