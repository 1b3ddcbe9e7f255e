/** Of each line that `engines` in package.json admits: of one the lowest, of the others the newest. */
export const NODES = ['20.19.0', '22.23.3', '24.21.0'] as const;
/** The lowest of the line between; it is what the lowest versions of everything else are tried with. */
export const LOWEST = '22.12.0';

/** The npm packages that bring them, by the name that each has in the folder they are installed in. */
export const NODE_PACKAGES = Object.fromEntries(
  [...NODES, LOWEST].map((version) => [
    `node-${version}`,
    `npm:node-${process.platform}-${process.arch}@${version}`,
  ]),
);
