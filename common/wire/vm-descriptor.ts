import { z } from 'zod';

import { monitoringSpecifierSchema } from './monitoring-specifier.ts';

/** Topic levels are made of VM ids, and some brokers refuse anything but these characters there. */
export const vmIdSchema = z
  .string()
  .regex(/^[A-Za-z0-9_-]{1,64}$/, 'letters, digits, _ and -, 1 to 64 of them')
  .brand<'VmId'>();
export type VmId = z.output<typeof vmIdSchema>;

/** How the host reaches the agent in the VM; see common/channel for the addresses. */
const guestSchema = z.strictObject({
  /** `unix:/run/vm1.sock`, `virtio:/run/vm1-port.sock`, `tcp:host:port`. */
  channel: z.string().regex(/^(?:unix|virtio|tcp):.+$/, 'unix:PATH, virtio:PATH or tcp:HOST:PORT'),
  /** `triggers`: the guest tells when rows come. `polling`: the host asks at an interval. */
  notification: z.enum(['triggers', 'polling']).default('triggers'),
  /** With polling: how often the host asks. */
  pollingIntervalMs: z.int().min(1).max(3_600_000).default(1_000),
  /** The directory of PEM files for mutual TLS; tcp: only. */
  tlsDirectory: z.string().min(1).optional(),
});

/** Which probe measures the VM from outside. */
const probeSchema = z.discriminatedUnion('kind', [
  z.strictObject({ kind: z.literal('none') }),
  /** The whole machine, from /proc: when host and VM are one. */
  z.strictObject({ kind: z.literal('machine') }),
  /** One hypervisor process: /proc/PID and its control group. */
  z.strictObject({ kind: z.literal('process'), pid: z.int().positive() }),
]);
export type ProbeDescriptor = z.output<typeof probeSchema>;

/** The document of one VM, as far as monitoring needs it. */
export const vmDescriptorSchema = z.strictObject({
  apiVersion: z.literal('isobar/v1'),
  kind: z.literal('VirtualMachine'),
  id: vmIdSchema,
  /** Raised by one with each change; a change states the revision that it was made from (compare-and-set). */
  revision: z.int().positive().default(1),
  guest: guestSchema.optional(),
  probe: probeSchema.default({ kind: 'none' }),
  monitoring: z
    .strictObject({
      specifiers: z.array(monitoringSpecifierSchema).max(1_024).default([]),
      /** How long a window waits for a silent guest's watermark. */
      latenessMaxMs: z.int().min(0).max(86_400_000).default(5_000),
      /** Data points that intermediaries may see in the clear on the status stream. */
      visibleToIntermediaries: z.array(z.string().min(1).max(512)).max(64).default([]),
    })
    .prefault({})
    .refine(
      (monitoring) =>
        new Set(monitoring.specifiers.map(({ id }) => id)).size === monitoring.specifiers.length,
      'specifier ids must be unique',
    ),
  /** PEM; measurements are encrypted for its holder when present. */
  primarySitePublicKey: z.string().optional(),
});
export type VmDescriptor = z.output<typeof vmDescriptorSchema>;
