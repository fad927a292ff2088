import { setTimeout as delay } from 'node:timers/promises';

/**
 * Waits until `condition` returns something other than false or undefined, and returns that. A condition that throws
 * counts as not yet; its last error is the cause when time runs out.
 */
export async function eventually<Result>(
  condition: () => Result | Promise<Result>,
  options: { readonly timeoutMs: number; readonly pollMs?: number },
): Promise<Exclude<Result, false | undefined>> {
  const deadlineMs = performance.now() + options.timeoutMs;
  let lastError: unknown;
  for (;;) {
    try {
      const result = await condition();
      if (result !== false && result !== undefined) {
        return result as Exclude<Result, false | undefined>;
      }
      lastError = undefined;
    } catch (error) {
      lastError = error;
    }
    if (performance.now() > deadlineMs) {
      throw new Error(`not so within ${options.timeoutMs} ms: ${condition.toString()}`, {
        cause: lastError,
      });
    }
    await delay(options.pollMs ?? 5);
  }
}
