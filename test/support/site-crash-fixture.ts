import { existsSync, readFileSync, unlinkSync } from 'node:fs';

import { EpochRanges } from '../../broker/log/epoch-ranges.ts';
import { LogCursors } from '../../broker/log/log-cursors.ts';
import { MqttClient } from '../../broker/mqtt/mqtt-client.ts';
import { Producer } from '../../broker/producer/producer.ts';
import { WalSync } from '../../common/sqlite/wal-sync.ts';
import { decodeUpstream } from '../../common/wire/control-message.ts';
import { PrimaryStore } from '../../primary-site/store/primary-store.ts';
import type { SiteCrashPoint } from './site-crash-points.ts';

/*
 * For `node --import` in the process of a site: ends it with SIGKILL when it reaches the crash point that the file CRASH_AT
 * holds, and removes the file first. Wraps the methods that the points lie between, which product code does not know.
 */
const flag = process.env['CRASH_AT'] ?? '';

function reach(point: SiteCrashPoint): void {
  if (!existsSync(flag) || readFileSync(flag, 'utf8') !== point) return;
  unlinkSync(flag);
  process.kill(process.pid, 'SIGKILL');
}

interface Points<Parameters extends unknown[]> {
  readonly before?: SiteCrashPoint;
  /** When what the method returned has resolved. */
  readonly after?: SiteCrashPoint;
  /** Which calls count; all by default. */
  readonly counts?: (...parameters: Parameters) => boolean;
}

function wrap<Type, Name extends keyof Type>(
  prototype: Type,
  name: Name,
  wrapped: (original: Type[Name]) => Type[Name],
): void {
  prototype[name] = wrapped(prototype[name]);
}

function between<Parameters extends unknown[], Result>(
  original: (...parameters: Parameters) => Result,
  { before, after, counts = () => true }: Points<Parameters>,
): (...parameters: Parameters) => Result {
  return function wrapped(this: unknown, ...parameters: Parameters): Result {
    const isCounted = counts(...parameters);
    if (isCounted && before !== undefined) reach(before);
    const result = original.apply(this, parameters);
    if (!isCounted || after === undefined) return result;
    const reachAfter = (): void => {
      reach(after);
    };
    if (result instanceof Promise) result.then(reachAfter, () => {});
    else reachAfter();
    return result;
  };
}

function tellsStored(_topic: string, payload: Uint8Array, _qos: number): boolean {
  const decoded = decodeUpstream(payload);
  return decoded.ok && decoded.message.kind === 'stored';
}

wrap(Producer.prototype, 'forward', (original) =>
  between(original, { before: 'received', after: 'forwarded' }),
);
wrap(PrimaryStore.prototype, 'store', (original) => between(original, { before: 'received' }));
wrap(EpochRanges.prototype, 'writeRanges', (original) =>
  between(original, { after: 'frames-written' }),
);
wrap(WalSync.prototype, 'sync', (original) =>
  between(original, { before: 'committed', after: 'synced' }),
);
wrap(MqttClient.prototype, 'publish', (original) =>
  between(original, { after: 'acknowledged', counts: tellsStored }),
);
wrap(LogCursors.prototype, 'advance', (original) =>
  between(original, { after: 'watermarks-written' }),
);
