import { z } from 'zod';

import { listenSchema, siteDirectorySchema } from '../broker/mqtt/site-transport-config.ts';
import { logLevels } from '../common/runtime/log.ts';
import { controlSchema } from '../common/site-control/site-control-config.ts';
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
  mqttUrl: z
    .url({ protocol: /^mqtts?$/ })
    .optional()
    .describe('An external broker, mqtt://HOST:PORT. Default: a broker in this process.'),
  mqttHost: z
    .string()
    .min(1)
    .default('127.0.0.1')
    .describe('Address on which the broker in this process listens; unused with mqttUrl.'),
  mqttPort: z
    .int()
    .min(0)
    .max(65_535)
    .default(1_883)
    .describe(
      'Port on which the broker in this process listens, 0: a free one; unused with mqttUrl.',
    ),
  siteDirectory: siteDirectorySchema,
  listen: listenSchema
    .optional()
    .describe('With siteDirectory: where neighbours dial our broker. Default: none do.'),
  control: controlSchema
    .optional()
    .describe('With siteDirectory: where neighbours send us signed requests. Default: nowhere.'),
  relations: z
    .array(z.string().regex(/^[A-Za-z0-9_-]{1,64}$/))
    .max(64)
    .default(['primary-site'])
    .describe('Neighbours that may subscribe, each by the name of its MQTT subtree.'),
  logBytesMax: z
    .int()
    .min(1_048_576)
    .default(1_073_741_824)
    .describe(
      'Size of the stream log, bytes; stored frames are pruned first, then the oldest, as lost.',
    ),
  logAgeMaxMs: z
    .int()
    .min(60_000)
    .default(7 * 86_400_000)
    .describe('Frames older than this are pruned, ms.'),
  signFrames: z
    .boolean()
    .optional()
    .describe(
      'Sign each frame with a key of its epoch, which is made here and stays here. Default: with siteDirectory.',
    ),
  contentKeyRotationMs: z
    .int()
    .min(1_000)
    .max(30 * 86_400_000)
    .default(86_400_000)
    .describe('A new key seals the data of a VM with primarySitePublicKey this often, ms.'),
  contentKeyRepeatMs: z
    .int()
    .min(1_000)
    .max(86_400_000)
    .default(60_000)
    .describe('Sealed frames bring the key for the primary site along this often, ms.'),
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
