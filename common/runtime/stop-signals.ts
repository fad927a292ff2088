import type { Clock } from './clock.ts';

export interface StopSignals {
  /** Resolves with the reason at the first signal, or with `parent-gone`. */
  readonly requested: Promise<string>;
  /** Removes the handlers and drops the IPC channel, so that the event loop can empty. */
  release(): void;
}

const signals = ['SIGINT', 'SIGTERM'] as const;

/**
 * A second signal within this time is the same key press: a terminal signals the whole foreground group, and npm
 * forwards to its child what the child already got.
 */
const sameRequestMaxMs = 300;

/**
 * SIGINT or SIGTERM once asks for an orderly stop; a second one ends the process at once, by that signal, after
 * `onSecond`. A parent that was connected by IPC and goes away counts as a first signal.
 */
export function listenForStop(clock: Clock, onSecond: (signal: string) => void): StopSignals {
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
    onSecond(signal);
    process.kill(process.pid, signal);
  };
  const onDisconnect = (): void => {
    resolveRequested('parent-gone');
  };
  const removeHandlers = (): void => {
    for (const signal of signals) process.removeListener(signal, onSignal);
    process.removeListener('disconnect', onDisconnect);
  };
  for (const signal of signals) process.on(signal, onSignal);
  process.once('disconnect', onDisconnect);
  return {
    requested,
    release: () => {
      removeHandlers();
      if (process.connected) process.disconnect();
    },
  };
}
