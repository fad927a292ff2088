import type { IncomingHttpHeaders } from 'node:http';

import type { z } from 'zod';

import { backoffDelayMs, reconnectPolicy } from '../runtime/backoff.ts';
import type { Clock } from '../runtime/clock.ts';
import type { Random } from '../runtime/random.ts';
import { ControlError, type ControlClient } from './control-client.ts';

export interface FollowOptions<Item> {
  /** The path to ask for, given the newest item so far: how a reconnection goes on where the last one ended. */
  readonly pathAfter: (newest: Item | undefined) => string;
  /** Each connection's answer has begun; its headers may say where the stream begins, for `pathAfter`. */
  readonly onHead?: (headers: IncomingHttpHeaders) => void;
  /** A connection was lost (once for each loss, not for each attempt). */
  readonly onLost: (error: ControlError | null) => void;
  /** A connection stands again. */
  readonly onRestored: () => void;
  readonly signal: AbortSignal;
}

/**
 * An NDJSON stream that survives restarts of its peer: reconnects with {@link reconnectPolicy} until `signal` aborts.
 * The first connection must succeed, so that a peer that was never started is an error at once.
 * @throws ControlError of the first connection, or one that is not retryable
 */
export async function* follow<Schema extends z.ZodType>(
  client: ControlClient,
  schema: Schema,
  options: FollowOptions<z.output<Schema>>,
  dependencies: { readonly clock: Clock; readonly random: Random },
): AsyncGenerator<z.output<Schema>, void> {
  let newest: z.output<Schema> | undefined;
  await client.process();
  let failedAttempts = 0;
  while (!options.signal.aborted) {
    try {
      if (failedAttempts > 0) {
        await client.process();
        options.onRestored();
        failedAttempts = 0;
      }
      const path = options.pathAfter(newest);
      for await (const item of client.stream(path, schema, options.signal, options.onHead)) {
        newest = item;
        yield item;
      }
      if (!options.signal.aborted && failedAttempts === 0) options.onLost(null);
    } catch (error) {
      if (!(error instanceof ControlError) || !error.retryable) throw error;
      if (failedAttempts === 0) options.onLost(error);
    }
    const delayMs = backoffDelayMs(reconnectPolicy, failedAttempts, dependencies.random);
    failedAttempts += 1;
    await dependencies.clock.sleep(delayMs, options.signal).catch(() => {});
  }
}
