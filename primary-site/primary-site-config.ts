import { z } from 'zod';

import { mqttClientDefaults } from '../broker/mqtt/mqtt-client.ts';
import {
  brokerUrlSchema,
  externalBrokerSchema,
  listenSchema,
  localPortSchema,
  problemOfDial,
  problemOfListen,
  siteDirectorySchema,
} from '../broker/mqtt/site-transport-config.ts';
import { askSchema, policyKindsSchema, policyVmsSchema } from '../broker/stream-policy.ts';
import { socketPathProblem } from '../common/control/control-answer.ts';
import { controlSchema, controlUrlSchema } from '../common/site-control/site-control-config.ts';
import { signaturePolicies } from './sealing/signature-inspector.ts';

const dayMs = 24 * 3_600_000;
const gibibyte = 1_024 ** 3;

/** Configuration of a primary site's reader; a JSON file. */
export const primarySiteConfigSchema = z
  .strictObject({
    dataDirectory: z.string().min(1).describe('Directory of the store; made when it is missing.'),
    controlSocket: z
      .string()
      .min(1)
      .superRefine((path, context) => {
        const message = socketPathProblem(path);
        if (message !== undefined) context.addIssue({ code: 'custom', message });
      })
      .describe('Unix socket that serves the HTTP API to this user and root.'),
    mqttUrl: brokerUrlSchema
      .optional()
      .describe('The broker that the producer publishes to. Default: the producer dials ours.'),
    externalBroker: externalBrokerSchema,
    siteDirectory: siteDirectorySchema,
    listen: listenSchema
      .optional()
      .describe('Our own broker, for a producer that dials us. Default: none.'),
    localPort: localPortSchema,
    relation: z
      .string()
      .regex(/^[A-Za-z0-9_-]{1,64}$/, 'letters, digits, _ and -, 1 to 64 of them')
      .default('primary-site')
      .describe('Name of the relation to the producer; both sides have the same.'),
    vms: policyVmsSchema.describe('VMs whose streams are taken: ids, or all.'),
    kinds: policyKindsSchema.describe(
      'Which streams of these VMs: data, status, or both. status alone: an intermediary taps what the descriptors let it see.',
    ),
    control: controlSchema
      .optional()
      .describe('Where the producer sends us signed requests. Default: nowhere.'),
    controlUrl: controlUrlSchema
      .optional()
      .describe(
        'Where the producer answers signed requests, https://HOST:PORT; revocation lists are exchanged there.',
      ),
    ask: askSchema
      .optional()
      .describe(
        'With controlUrl: ask for the streams of these VMs, or all, on demand; an empty list ends what was asked for before.',
      ),
    keepaliveSeconds: z
      .int()
      .min(1)
      .max(3_600)
      .default(mqttClientDefaults.keepaliveSeconds)
      .describe('A half-open connection is noticed within one and a half of it.'),
    retention: z
      .strictObject({
        ageMaxMs: z
          .int()
          .min(60_000)
          .max(3_650 * dayMs)
          .default(30 * dayMs)
          .describe('Readings whose event time is older are removed.'),
        bytesMax: z
          .int()
          .min(1_024 ** 2)
          .default(4 * gibibyte)
          .describe('Bytes of the store; above it the oldest are removed.'),
        intervalMs: z
          .int()
          .min(100)
          .max(dayMs)
          .default(10_000)
          .describe('Milliseconds between looks at age and size.'),
      })
      .prefault({}),
    seriesMax: z
      .int()
      .min(1)
      .max(10_000_000)
      .default(200_000)
      .describe(
        'Data points taken, each as one specifier delivers it; readings of further ones are dropped and counted.',
      ),
    keysDirectory: z
      .string()
      .min(1)
      .optional()
      .describe('Private keys *.key (mode 600) and certificates *.crt that open what is sealed.'),
    signatures: z
      .enum(signaturePolicies)
      .optional()
      .describe(
        'off; when-stated: check epochs whose key was stated; required: take nothing else. Default: required with siteDirectory, else when-stated.',
      ),
    jsonTopics: z
      .boolean()
      .default(true)
      .describe(
        'Publish each reading as JSON under json/<vm>/...; with siteDirectory only on our own broker at localPort.',
      ),
  })
  .superRefine((config, context) => {
    const { mqttUrl, listen, siteDirectory, control, controlUrl, ask } = config;
    if (ask !== undefined && controlUrl === undefined) {
      const message = 'needs controlUrl, where the producer can be asked';
      context.addIssue({ code: 'custom', path: ['ask'], message });
    }
    for (const [key, value] of Object.entries({ control, controlUrl })) {
      if (value === undefined || siteDirectory !== undefined) continue;
      const message = 'signed requests need siteDirectory, which has the keys';
      context.addIssue({ code: 'custom', path: [key], message });
    }
    if (mqttUrl === undefined && listen === undefined) {
      context.addIssue({
        code: 'custom',
        path: ['mqttUrl'],
        message: 'give the address of the broker, or `listen`, so that the producer can dial ours',
      });
    }
    const isExternal = config.externalBroker;
    const problems = {
      mqttUrl:
        mqttUrl === undefined
          ? undefined
          : problemOfDial({ url: mqttUrl, siteDirectory, isExternal }),
      listen: listen === undefined ? undefined : problemOfListen(listen, siteDirectory),
    };
    for (const [key, message] of Object.entries(problems)) {
      if (message !== undefined) context.addIssue({ code: 'custom', path: [key], message });
    }
  });
export type PrimarySiteConfig = z.output<typeof primarySiteConfigSchema>;

/** A complete, valid document. */
export const primarySiteConfigExample = {
  dataDirectory: '/var/lib/isobar/primary-site',
  controlSocket: '/run/isobar/primary-site.sock',
  mqttUrl: 'mqtt://127.0.0.1:1883',
  relation: 'primary-site',
  retention: { ageMaxMs: 30 * dayMs, bytesMax: 4 * gibibyte },
  jsonTopics: true,
} as const;
