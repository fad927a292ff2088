import type { Log } from '../../../common/runtime/log.ts';
import type { StageCounters } from '../../../common/runtime/stage-counters.ts';
import { errno } from '../errno.ts';
import type { NativeOperations } from './fuse-native-module.ts';

/**
 * `operations`, counted, and with EIO for a request whose operation throws: fuse-native would let the error end the
 * process, and the mount with it. accepted: requests; forwarded: replies; failed: operations that threw.
 */
export function guardOperations(
  operations: NativeOperations,
  deps: { readonly counters: StageCounters; readonly log: Log },
): NativeOperations {
  return new Proxy(operations, {
    get: (target, name) => {
      const operation: unknown = Reflect.get(target, name);
      if (typeof operation !== 'function') return operation;
      return guard(operation.bind(target), String(name), deps);
    },
  });
}

function guard(
  operation: Function,
  name: string,
  { counters, log }: { readonly counters: StageCounters; readonly log: Log },
): (...args: readonly unknown[]) => void {
  return (...args) => {
    const done = args.at(-1);
    if (typeof done !== 'function') return;
    let isAnswered = false;
    const answer = (...reply: readonly unknown[]): void => {
      if (isAnswered) return;
      isAnswered = true;
      counters.forwarded += 1;
      Reflect.apply(done, undefined, reply);
    };
    const fail = (): void => {
      if (isAnswered) return;
      isAnswered = true;
      counters.failed += 1;
      Reflect.apply(done, undefined, [-errno.EIO]);
    };
    counters.accepted += 1;
    try {
      Reflect.apply(operation, undefined, [...args.slice(0, -1), answer]);
    } catch (error) {
      log.error('fuse-request-failed', { operation: name, error });
      fail();
    }
  };
}
