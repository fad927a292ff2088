/**
 * Of the fuse and the store thread, MiB. Nearly all of their objects die with the request that made them, so a small young
 * generation is collected as cheaply as a large one, and the thread stays an order of magnitude smaller.
 */
export const threadMemoryLimits = { maxYoungGenerationSizeMb: 3 } as const;
