import { join } from 'node:path';

import { z } from 'zod';

import { mqttClientDefaults } from '../broker/mqtt/mqtt-client.ts';
import {
  brokerUrlSchema,
  isLoopbackHost,
  listenSchema,
  problemOfDial,
  siteDirectorySchema,
} from '../broker/mqtt/site-transport-config.ts';
import { policyKindsSchema, policyVmsSchema, relationNameSchema } from '../broker/stream-policy.ts';
import { socketPathProblem } from '../common/control/control-answer.ts';
import { logLevels } from '../common/runtime/log.ts';
import { controlSchema, controlUrlSchema } from '../common/site-control/site-control-config.ts';
import { engineBoundsDefault } from './specifiers/engine-bounds.ts';

const relationSchema = z.strictObject({
  relation: relationNameSchema.describe(
    'Name of the relation to this neighbour; both have the same.',
  ),
  dial: brokerUrlSchema
    .optional()
    .describe("The neighbour's broker, which we dial. Default: the neighbour dials ours."),
  vms: policyVmsSchema.describe('VMs whose streams this neighbour may have: ids, or all.'),
  kinds: policyKindsSchema.describe('Which streams of these VMs: data, status, or both.'),
  controlUrl: controlUrlSchema
    .optional()
    .describe(
      'Where it answers signed requests, https://HOST:PORT. Default: revocation lists are exchanged when it asks us.',
    ),
});
export type CollectorRelation = z.output<typeof relationSchema>;

/** The collector's configuration. */
export const hostCollectorConfigSchema = z
  .strictObject({
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
      .describe(
        'FULL: what was acknowledged to a guest survives a power cut. NORMAL: a crash only.',
      ),
    mqttUrl: brokerUrlSchema
      .optional()
      .describe(
        'An external broker: mqtt://HOST:PORT on this machine; with siteDirectory also mqtts://HOST:PORT, TLS 1.3 with an authority of the system. Default: a broker in this process.',
      ),
    mqttHost: z
      .string()
      .refine(
        isLoopbackHost,
        '127.0.0.1 or ::1: neighbours come in by `listen`, with siteDirectory',
      )
      .default('127.0.0.1')
      .describe(
        'Loopback address on which the broker in this process listens; unused with mqttUrl.',
      ),
    mqttPort: z
      .int()
      .min(0)
      .max(65_535)
      .default(1_883)
      .describe(
        'Port on which the broker in this process listens, 0: a free one; unused with mqttUrl, and where we dial all relations.',
      ),
    siteDirectory: siteDirectorySchema,
    listen: listenSchema
      .optional()
      .describe('With siteDirectory: where neighbours dial our broker. Default: none do.'),
    control: controlSchema
      .optional()
      .describe('With siteDirectory: where neighbours send us signed requests. Default: nowhere.'),
    relations: z
      .array(
        z
          .union([relationNameSchema, relationSchema])
          .transform((each): CollectorRelation =>
            typeof each === 'string' ? relationSchema.parse({ relation: each }) : each,
          ),
      )
      .max(64)
      .prefault(['primary-site'])
      .describe(
        'Neighbours that may subscribe: each an object, or the name of its relation alone, which may have every stream.',
      ),
    keepaliveSeconds: z
      .int()
      .min(1)
      .max(3_600)
      .default(mqttClientDefaults.keepaliveSeconds)
      .describe('A half-open connection is noticed within one and a half of it.'),
    logBytesMax: z
      .int()
      .min(1_048_576)
      .default(1_073_741_824)
      .describe(
        'Size of the stream log, bytes; stored frames are pruned first, then the oldest, as lost.',
      ),
    logPruneIntervalMs: z
      .int()
      .min(100)
      .max(600_000)
      .default(30_000)
      .describe(
        'How often the log is looked through for what is too old or too much, ms; in between it may grow beyond its size.',
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
  })
  .superRefine(({ dataDirectory, controlSocket }, context) => {
    const message = socketPathProblem(controlSocket ?? join(dataDirectory, 'control.sock'));
    if (message !== undefined) {
      context.addIssue({ code: 'custom', path: ['dataDirectory'], message });
    }
  })
  .superRefine(({ relations, siteDirectory, listen, control, mqttUrl }, context) => {
    const external = problemOf(mqttUrl, siteDirectory, true);
    if (external !== undefined) {
      context.addIssue({ code: 'custom', path: ['mqttUrl'], message: external });
    }
    for (const [key, value] of Object.entries({ listen, control })) {
      if (value === undefined || siteDirectory !== undefined) continue;
      const message = 'is for other machines: they need siteDirectory (`isobar site init`)';
      context.addIssue({ code: 'custom', path: [key], message });
    }
    if (listen !== undefined && relations.every(({ dial }) => dial !== undefined)) {
      const message = 'we dial every relation, so nobody dials us: leave it out';
      context.addIssue({ code: 'custom', path: ['listen'], message });
    }
    const seen = new Set<string>();
    for (const [index, { relation, dial, controlUrl }] of relations.entries()) {
      const add = (key: string, message: string): void => {
        context.addIssue({ code: 'custom', path: ['relations', index, key], message });
      };
      if (seen.has(relation)) {
        add('relation', `there is another relation ${relation}; each neighbour has one of its own`);
      }
      seen.add(relation);
      const problem = problemOf(dial, siteDirectory, false);
      if (problem !== undefined) add('dial', problem);
      if (controlUrl !== undefined && siteDirectory === undefined) {
        add('controlUrl', 'signed requests need siteDirectory, which has the keys');
      }
    }
  });
function problemOf(
  url: string | undefined,
  siteDirectory: string | undefined,
  isExternal: boolean,
): string | undefined {
  return url === undefined ? undefined : problemOfDial({ url, siteDirectory, isExternal });
}

export type HostCollectorConfig = z.output<typeof hostCollectorConfigSchema>;
