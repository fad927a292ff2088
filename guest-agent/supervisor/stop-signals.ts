/** `process`, or what a test puts in its place. */
export interface SignalSource {
  on(signal: 'SIGTERM' | 'SIGINT', listener: () => void): unknown;
  off(signal: 'SIGTERM' | 'SIGINT', listener: () => void): unknown;
}

/**
 * SIGTERM or SIGINT once: `stop`, in order. A second one, of either: `stopNow`. Further ones are ignored. Returns what
 * takes the listeners off again.
 */
export function onStopSignals(
  source: SignalSource,
  actions: { readonly stop: () => void; readonly stopNow: () => void },
): () => void {
  let count = 0;
  const listener = (): void => {
    count += 1;
    if (count === 1) actions.stop();
    else if (count === 2) actions.stopNow();
  };
  source.on('SIGTERM', listener);
  source.on('SIGINT', listener);
  return () => {
    source.off('SIGTERM', listener);
    source.off('SIGINT', listener);
  };
}
