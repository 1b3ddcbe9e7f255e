/** Milliseconds on the system's monotonic clock, which is the same in every process. */
export declare const now: () => number;
/** Notes every time this process's event loop stood still; the function gives what is new: `[from, to]` each. */
export declare function watchLags(): () => [from: number, to: number][];
