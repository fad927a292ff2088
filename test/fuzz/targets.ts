import { brokenTargets } from './broken-targets.ts';
import type { FuzzTarget } from './fuzz-target.ts';
import { certificates } from './targets/certificates.ts';
import { channelFrames } from './targets/channel-frames.ts';
import { controlMessages } from './targets/control-messages.ts';
import { controlSockets } from './targets/control-sockets.ts';
import { csv } from './targets/csv.ts';
import { dataPointPatterns } from './targets/data-point-patterns.ts';
import { documents } from './targets/documents.ts';
import { envelopes } from './targets/envelopes.ts';
import { frameBytes } from './targets/frames.ts';
import { fuseRequests } from './targets/fuse-requests.ts';
import { fuseSession } from './targets/fuse-session.ts';
import { guestOfHostileHost } from './targets/guest-of-hostile-host.ts';
import { hostOfHostileGuest } from './targets/host-of-hostile-guest.ts';
import { localMqtt, neighbourMqtt } from './targets/mqtt-packets.ts';
import { neighbourPayloads } from './targets/neighbour-payloads.ts';
import { siteControl } from './targets/site-control.ts';

/** All that is fuzzed. */
export const fuzzTargets: readonly FuzzTarget[] = [
  csv,
  documents,
  dataPointPatterns,
  frameBytes,
  controlMessages,
  channelFrames,
  fuseRequests,
  envelopes,
  certificates,
  neighbourPayloads,
  guestOfHostileHost,
  hostOfHostileGuest,
  localMqtt,
  neighbourMqtt,
  siteControl,
  controlSockets,
  fuseSession,
];

/** By name, the broken ones too. */
export function findTarget(name: string): FuzzTarget | undefined {
  return [...fuzzTargets, ...brokenTargets].find((target) => target.name === name);
}
