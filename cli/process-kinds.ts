import type { z } from 'zod';

import { relayConfigExample, relayConfigSchema } from '../broker/relay/relay-config.ts';
import { siteDocumentSchema } from '../common/identity/site-files.ts';
import { vmDescriptorSchema } from '../common/wire/vm-descriptor.ts';
import { guestAgentConfigSchema } from '../guest-agent/config.ts';
import { hostCollectorConfigSchema } from '../host-collector/config.ts';
import {
  primarySiteConfigExample,
  primarySiteConfigSchema,
} from '../primary-site/primary-site-config.ts';

/** A kind of document that `isobar config` checks and shows examples of. */
export interface DocumentKind {
  readonly schema: z.ZodType;
  /** A complete, valid document: what `isobar config example` prints. */
  readonly example: unknown;
}

/** All of them, by the name that people type. */
export const documentKinds: Readonly<Record<string, DocumentKind>> = {
  'guest-agent': {
    schema: guestAgentConfigSchema,
    example: {
      mountPath: '/mnt/isobar',
      dataDirectory: '/var/lib/isobar/guest-agent',
      controlSocket: '/run/isobar/guest-agent.sock',
      channel: { address: 'virtio:/dev/virtio-ports/org.isobar.channel' },
    },
  },
  'host-collector': {
    schema: hostCollectorConfigSchema,
    example: {
      dataDirectory: '/var/lib/isobar/host-collector',
      controlSocket: '/run/isobar/host-collector.sock',
    },
  },
  relay: { schema: relayConfigSchema, example: relayConfigExample },
  'primary-site': { schema: primarySiteConfigSchema, example: primarySiteConfigExample },
  site: {
    schema: siteDocumentSchema,
    example: {
      apiVersion: 'isobar/v1',
      kind: 'Site',
      name: 'site-a',
      listen: ['site-a.example:8883'],
      neighbours: [
        {
          relation: 'a-b',
          site: 'site-b',
          role: 'consumer',
          trustedAt: '2026-01-01T00:00:00.000Z',
        },
      ],
    },
  },
  vm: {
    schema: vmDescriptorSchema,
    example: {
      apiVersion: 'isobar/v1',
      kind: 'VirtualMachine',
      id: 'vm1',
      guest: { channel: 'virtio:/run/vm1-channel.sock', notification: 'triggers' },
      probe: { kind: 'process', pid: 4321 },
      monitoring: {
        specifiers: [
          { id: 'kpis', dataPoints: 'kpi/**', format: 'raw' },
          {
            id: 'cpu',
            dataPoints: 'infra/cpu/usage_ratio',
            monitoringIntervalMs: 1_000,
            deliveryIntervalMs: 60_000,
            format: 'mean',
          },
          {
            id: 'slow',
            dataPoints: 'kpi/responses/time_ms',
            predicate: { condition: 'above', threshold: 500, kind: 'edge', hysteresis: 50 },
          },
        ],
        latenessMaxMs: 5_000,
      },
    },
  },
};
