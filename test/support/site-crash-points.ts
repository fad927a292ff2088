/**
 * Between two steps of a frame's way through a site, where a test may end the process (site-crash-fixture.ts):
 *
 *     live frame --> handed on --> frames and ranges written --> COMMIT --> fdatasync --> told upstream --> cursors written
 *       |              |             |                             |          |             |                 |
 *       received       forwarded     frames-written                committed  synced        acknowledged      watermarks-written
 *
 * Only a relay hands on, and writes the cursors of whoever is behind it.
 */
export const relayCrashPoints = [
  'received',
  'forwarded',
  'frames-written',
  'committed',
  'synced',
  'acknowledged',
  'watermarks-written',
] as const;
export type SiteCrashPoint = (typeof relayCrashPoints)[number];

export const readerCrashPoints = [
  'received',
  'frames-written',
  'committed',
  'synced',
  'acknowledged',
] as const satisfies readonly SiteCrashPoint[];
