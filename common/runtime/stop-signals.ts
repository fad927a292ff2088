import type { Clock } from './clock.ts';

export interface StopSignals {
  /** Resolves with the reason at the first signal, or with `parent-gone`. */
  readonly requested: Promise<string>;
  /** Asks for the same from within. */
  readonly request: (reason: string) => void;
  /** Removes the handlers and drops the IPC channel, so that the event loop can empty. */
  release(): void;
}

const signals = ['SIGINT', 'SIGTERM'] as const;

/**
 * A second signal within this time is the same key press: a terminal signals the whole foreground group, and npm
 * forwards to its child what the child already got.
 */
const sameRequestMaxMs = 300;

/** How long the work of a second signal may take before the process ends all the same. */
const stopNowMaxMs = 2_000;

/**
 * SIGINT or SIGTERM once asks for an orderly stop. A second one ends the process by that signal, after `stopNow`, which
 * has two seconds for what must not be left behind; a third does not wait even for that. A parent that was connected
 * by IPC and goes away counts as a first signal.
 */
export function listenForStop(
  clock: Clock,
  options: {
    readonly stopNow: (signal: string) => void | Promise<void>;
    /** Default true. */
    readonly watchesParent?: boolean;
  },
): StopSignals {
  const watchesParent = options.watchesParent ?? true;
  let resolveRequested: (reason: string) => void;
  const requested = new Promise<string>((resolve) => {
    resolveRequested = resolve;
  });
  let firstAtMs: number | undefined;
  const onSignal = (signal: NodeJS.Signals): void => {
    if (firstAtMs === undefined) {
      firstAtMs = clock.monotonicMs();
      resolveRequested(signal);
      return;
    }
    if (clock.monotonicMs() - firstAtMs < sameRequestMaxMs) return;
    removeHandlers();
    const end = (): void => {
      process.kill(process.pid, signal);
    };
    void Promise.race([options.stopNow(signal), clock.sleep(stopNowMaxMs)]).then(end, end);
  };
  const onDisconnect = (): void => {
    resolveRequested('parent-gone');
  };
  const removeHandlers = (): void => {
    for (const signal of signals) process.removeListener(signal, onSignal);
    process.removeListener('disconnect', onDisconnect);
  };
  for (const signal of signals) process.on(signal, onSignal);
  if (watchesParent) process.once('disconnect', onDisconnect);
  return {
    requested,
    request: (reason) => {
      resolveRequested(reason);
    },
    release: () => {
      removeHandlers();
      if (watchesParent && process.connected) process.disconnect();
    },
  };
}
