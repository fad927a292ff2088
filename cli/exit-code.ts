/**
 * What `isobar` exits with:
 *   0   done; also when a watch or `up` is ended by Ctrl-C, or its reader closed the pipe: that is how they end
 *   1   an operating error; the message says what to do
 *   2   wrong usage
 *   78  wrong configuration, or something that is missing on this machine (EX_CONFIG)
 */
export const exitCodes = { ok: 0, failure: 1, usage: 2, config: 78 } as const;
