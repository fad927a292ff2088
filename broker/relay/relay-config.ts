import { join } from 'node:path';

import { z } from 'zod';

import { socketPathProblem } from '../../common/control/control-answer.ts';
import { logLevels } from '../../common/runtime/log.ts';
import { controlSchema, controlUrlSchema } from '../../common/site-control/site-control-config.ts';
import { subscriptionLifeMsMax } from '../../common/site-control/subscription-endpoint.ts';
import { mqttClientDefaults } from '../mqtt/mqtt-client.ts';
import {
  brokerUrlSchema,
  externalBrokerSchema,
  listenSchema,
  localPortSchema,
  problemOfDial,
  problemOfListen,
  siteDirectorySchema,
} from '../mqtt/site-transport-config.ts';
import { byteQuotaDefaults } from '../quota/byte-quotas.ts';
import {
  askSchema,
  policyKindsSchema,
  policyVmsSchema,
  relationNameSchema,
} from '../stream-policy.ts';
import type { UpstreamQuotas } from './relay-options.ts';

const dayMs = 86_400_000;

/** Half of a burst holds the largest packet, so that every frame can pass. */
const burstBytesMin = 8 * 1_024 * 1_024;
const bytesPerSecond = z.int().min(1_024);
const burstBytes = z.int().min(burstBytesMin);

const relationQuotaSchema = z.strictObject({
  bytesPerSecond: bytesPerSecond
    .default(byteQuotaDefaults.neighbour.bytesPerSecond)
    .describe('Bytes of frames a second, in the long run.'),
  burstBytes: burstBytes
    .default(byteQuotaDefaults.neighbour.burstBytes)
    .describe('Bytes of frames at once, 8388608 or more.'),
  vmBytesPerSecond: bytesPerSecond
    .default(byteQuotaDefaults.vm.bytesPerSecond)
    .describe('Bytes of frames of one VM a second, in the long run.'),
  vmBurstBytes: burstBytes
    .default(byteQuotaDefaults.vm.burstBytes)
    .describe('Bytes of frames of one VM at once, 8388608 or more.'),
  vmsMax: z
    .int()
    .min(1)
    .max(1_000_000)
    .default(16_384)
    .describe(
      'VMs that it may name. Beyond it a VM without frames in the log gives its place to a new one, else the new one is not taken.',
    ),
});

const siteQuotaSchema = z.strictObject({
  bytesPerSecond: bytesPerSecond
    .default(byteQuotaDefaults.site.bytesPerSecond)
    .describe('Bytes of frames a second, in the long run.'),
  burstBytes: burstBytes
    .default(byteQuotaDefaults.site.burstBytes)
    .describe('Bytes of frames at once, 8388608 or more.'),
});

const relationSchema = z.strictObject({
  relation: relationNameSchema.describe(
    'Name of the relation to this neighbour; both have the same.',
  ),
  direction: z
    .enum(['upstream', 'downstream'])
    .describe('upstream: the neighbour is nearer to the VMs and sends. downstream: it receives.'),
  dial: brokerUrlSchema
    .optional()
    .describe("The neighbour's broker. Default: the neighbour dials ours."),
  externalBroker: externalBrokerSchema,
  vms: policyVmsSchema.describe(
    'VMs whose streams this neighbour may send, or may have: ids, or all.',
  ),
  kinds: policyKindsSchema.describe('Which streams of these VMs: data, status, or both.'),
  standing: z
    .boolean()
    .default(true)
    .describe(
      'With downstream: it lies on the way to the primary site, whose final storing is told upstream. false: an extra consumer.',
    ),
  onDemand: z
    .boolean()
    .default(false)
    .describe(
      'With downstream and standing false: it gets the streams that it asked for by signed request, of those above. false: all of them.',
    ),
  controlUrl: controlUrlSchema
    .optional()
    .describe(
      'Where it answers signed requests, https://HOST:PORT. Default: revocation lists are exchanged when it asks us.',
    ),
  ask: z
    .union([z.literal('on-demand'), askSchema])
    .optional()
    .describe(
      'With upstream and controlUrl: ask on demand for the streams of these VMs, or all; on-demand: those that neighbours ask us for. An empty list ends what was asked for before.',
    ),
  quota: relationQuotaSchema
    .prefault({})
    .describe(
      'With upstream: how much it may bring. Frames beyond it come later, nobody else’s do.',
    ),
});

export type RelationConfig = z.output<typeof relationSchema>;

/** Configuration of a relay; a JSON file. */
export const relayConfigSchema = z
  .strictObject({
    dataDirectory: z.string().min(1).describe('Directory of the log; made when it is missing.'),
    controlSocket: z
      .string()
      .min(1)
      .max(100)
      .optional()
      .describe('Path of the control socket. Default: control.sock in the data directory.'),
    logLevel: z.enum(logLevels).default('info').describe('Least severe log event that is written.'),
    siteDirectory: siteDirectorySchema,
    listen: listenSchema
      .optional()
      .describe('Our own broker, for neighbours that dial us. Default: none.'),
    localPort: localPortSchema,
    control: controlSchema
      .optional()
      .describe('Where neighbours send us signed requests. Default: nowhere.'),
    relations: z
      .array(relationSchema)
      .min(1)
      .max(1_024)
      .describe('The neighbours: those towards the VMs and those towards the primary sites.'),
    quota: siteQuotaSchema
      .prefault({})
      .describe('How much all neighbours together may bring; who floods is the one that waits.'),
    subscriptionLifeMs: z
      .int()
      .min(1_000)
      .max(subscriptionLifeMsMax)
      .default(3_600_000)
      .describe(
        'What a neighbour asked for on demand ends so long after it last asked, ms; it asks again after a third of it, or ten minutes.',
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
        'Size of the log, bytes; what the final reader stored is pruned first, then what the next hop stored, then the newest, fetched again when it is asked for.',
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
      .max(3_650 * dayMs)
      .default(7 * dayMs)
      .describe('Frames that came longer ago than this are pruned, ms.'),
  })
  .superRefine(({ dataDirectory, controlSocket }, context) => {
    const message = socketPathProblem(controlSocket ?? join(dataDirectory, 'control.sock'));
    if (message !== undefined) {
      context.addIssue({ code: 'custom', path: ['dataDirectory'], message });
    }
  })
  .superRefine(({ relations, listen, siteDirectory, control }, context) => {
    const seen = new Set<string>();
    if (control !== undefined && siteDirectory === undefined) {
      const message = 'signed requests need siteDirectory, which has the keys';
      context.addIssue({ code: 'custom', path: ['control'], message });
    }
    const listenProblem = listen === undefined ? undefined : problemOfListen(listen, siteDirectory);
    if (listenProblem !== undefined) {
      context.addIssue({ code: 'custom', path: ['listen', 'host'], message: listenProblem });
    }
    for (const [index, relationConfig] of relations.entries()) {
      const { relation, dial, externalBroker: isExternal } = relationConfig;
      for (const [key, message] of problemsOfRequests(relationConfig, { siteDirectory, control })) {
        context.addIssue({ code: 'custom', path: ['relations', index, key], message });
      }
      if (seen.has(relation)) {
        context.addIssue({
          code: 'custom',
          path: ['relations', index, 'relation'],
          message: `there is another relation ${relation}; each neighbour has one of its own`,
        });
      }
      seen.add(relation);
      const problem =
        dial === undefined ? undefined : problemOfDial({ url: dial, siteDirectory, isExternal });
      if (problem !== undefined) {
        context.addIssue({
          code: 'custom',
          path: ['relations', index, 'dial'],
          message: problem,
        });
      }
      if (dial === undefined && listen === undefined) {
        context.addIssue({
          code: 'custom',
          path: ['relations', index, 'dial'],
          message: 'give the address of its broker, or `listen`, so that it can dial ours',
        });
      }
    }
  });
export type RelayConfig = z.output<typeof relayConfigSchema>;

/** What a neighbour may bring, as its relation says. */
export function quotasOf({ quota }: Pick<RelationConfig, 'quota'>): UpstreamQuotas {
  const { bytesPerSecond: perSecond, burstBytes: burst, vmsMax } = quota;
  return {
    neighbour: { bytesPerSecond: perSecond, burstBytes: burst },
    vm: { bytesPerSecond: quota.vmBytesPerSecond, burstBytes: quota.vmBurstBytes },
    vmsMax,
  };
}

/** What signed requests between a relation's sites lack, by key. */
function problemsOfRequests(
  { direction, standing, onDemand, ask, controlUrl }: RelationConfig,
  site: { readonly siteDirectory: string | undefined; readonly control: object | undefined },
): [key: string, message: string][] {
  const problems: [string, string][] = [];
  if (controlUrl !== undefined && site.siteDirectory === undefined) {
    problems.push(['controlUrl', 'signed requests need siteDirectory, which has the keys']);
  }
  if (onDemand && (standing || direction === 'upstream')) {
    problems.push(['onDemand', 'is for direction downstream with standing false']);
  }
  if (onDemand && site.control === undefined) {
    problems.push(['onDemand', 'needs control, where the neighbour can ask']);
  }
  if (ask !== undefined && (direction === 'downstream' || controlUrl === undefined)) {
    problems.push(['ask', 'is for direction upstream with controlUrl']);
  }
  return problems;
}

/** A complete, valid document. */
export const relayConfigExample = {
  dataDirectory: '/var/lib/isobar/relay',
  controlSocket: '/run/isobar/relay.sock',
  siteDirectory: '/etc/isobar/site',
  listen: { host: '0.0.0.0', port: 8_883 },
  control: { listen: { host: '0.0.0.0', port: 8_443 } },
  relations: [
    { relation: 'source-here', direction: 'upstream', dial: 'mqtts://source.example:8883' },
    {
      relation: 'here-primary',
      direction: 'downstream',
      vms: ['vm1', 'vm2'],
      controlUrl: 'https://primary.example:8443',
    },
  ],
} as const;
