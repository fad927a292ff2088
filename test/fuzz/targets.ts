import { brokenTargets } from './broken-targets.ts';
import type { FuzzTarget } from './fuzz-target.ts';

/** What is fuzzed, loaded only where it is: each takes another part of the program. */
export interface FuzzTargetEntry {
  readonly name: string;
  /** `process`: all within one process, run with the unit tests. `sockets`: with the end-to-end tests. */
  readonly kind: 'process' | 'sockets';
  load(): Promise<FuzzTarget>;
}

/** All that is fuzzed. */
export const fuzzTargets: readonly FuzzTargetEntry[] = [
  inProcess('csv', async () => (await import('./targets/csv.ts')).csv),
  inProcess('documents', async () => (await import('./targets/documents.ts')).documents),
  inProcess(
    'data-point-patterns',
    async () => (await import('./targets/data-point-patterns.ts')).dataPointPatterns,
  ),
  inProcess('frames', async () => (await import('./targets/frames.ts')).frameBytes),
  inProcess(
    'control-messages',
    async () => (await import('./targets/control-messages.ts')).controlMessages,
  ),
  inProcess(
    'channel-frames',
    async () => (await import('./targets/channel-frames.ts')).channelFrames,
  ),
  inProcess('fuse-requests', async () => (await import('./targets/fuse-requests.ts')).fuseRequests),
  inProcess('envelopes', async () => (await import('./targets/envelopes.ts')).envelopes),
  inProcess('certificates', async () => (await import('./targets/certificates.ts')).certificates),
  inProcess(
    'neighbour-payloads',
    async () => (await import('./targets/neighbour-payloads.ts')).neighbourPayloads,
  ),
  overSockets(
    'guest-of-hostile-host',
    async () => (await import('./targets/guest-of-hostile-host.ts')).guestOfHostileHost,
  ),
  overSockets(
    'host-of-hostile-guest',
    async () => (await import('./targets/host-of-hostile-guest.ts')).hostOfHostileGuest,
  ),
  overSockets('local-mqtt', async () => (await import('./targets/mqtt-packets.ts')).localMqtt),
  overSockets(
    'neighbour-mqtt',
    async () => (await import('./targets/mqtt-packets.ts')).neighbourMqtt,
  ),
  overSockets('site-control', async () => (await import('./targets/site-control.ts')).siteControl),
  overSockets(
    'control-sockets',
    async () => (await import('./targets/control-sockets.ts')).controlSockets,
  ),
  overSockets('fuse-session', async () => (await import('./targets/fuse-session.ts')).fuseSession),
];

/** By name, the broken ones too. */
export function findTarget(name: string): FuzzTargetEntry | undefined {
  const broken = brokenTargets.map((target) =>
    inProcess(target.name, () => Promise.resolve(target)),
  );
  return [...fuzzTargets, ...broken].find((target) => target.name === name);
}

function inProcess(name: string, load: () => Promise<FuzzTarget>): FuzzTargetEntry {
  return { name, kind: 'process', load };
}

function overSockets(name: string, load: () => Promise<FuzzTarget>): FuzzTargetEntry {
  return { name, kind: 'sockets', load };
}
