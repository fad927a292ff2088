import { z } from 'zod';

import { logLevels } from '../common/runtime/log.ts';
import { engineBoundsDefault } from './specifiers/engine-bounds.ts';

/** The collector's configuration. */
export const hostCollectorConfigSchema = z.strictObject({
  dataDirectory: z
    .string()
    .min(1)
    .describe("Directory of the collector's database and control socket; made if missing."),
  controlSocket: z
    .string()
    .min(1)
    .max(100)
    .optional()
    .describe('Path of the control socket. Default: control.sock in the data directory.'),
  logLevel: z.enum(logLevels).default('info').describe('Least severe log event that is written.'),
  synchronous: z
    .enum(['FULL', 'NORMAL'])
    .default('FULL')
    .describe('FULL: what was acknowledged to a guest survives a power cut. NORMAL: a crash only.'),
  statusIntervalMs: z
    .int()
    .min(100)
    .max(3_600_000)
    .default(5_000)
    .describe('The status stream of each VM speaks at least this often, ms.'),
  probeIntervalMinMs: z
    .int()
    .min(10)
    .max(3_600_000)
    .default(100)
    .describe('Infrastructure is never measured more often than this, ms.'),
  revisionHorizonMs: z
    .int()
    .min(0)
    .max(86_400_000)
    .default(engineBoundsDefault.revisionHorizonMs)
    .describe('Rows later than this after their window are counted as lost, ms of guest time.'),
  closedWindowsMax: z
    .int()
    .min(1)
    .max(100_000)
    .default(engineBoundsDefault.closedWindowsMax)
    .describe('Delivered windows that each specifier keeps for revisions.'),
});
export type HostCollectorConfig = z.output<typeof hostCollectorConfigSchema>;
