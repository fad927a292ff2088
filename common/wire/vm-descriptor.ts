import { z } from 'zod';

import { parseRecipientPem, recipientPemCharsMax } from '../sealing/recipient-pem.ts';
import { alternativesRule, besideFieldErrors, crossFieldRule } from './cross-field.ts';
import { quantityProblem } from './data-point.ts';
import { dataPointPatternSchema, monitoringSpecifierSchema } from './monitoring-specifier.ts';

/** Topic levels are made of VM ids, and some brokers refuse anything but these characters there. */
export const vmIdSchema = z
  .string()
  .regex(/^[A-Za-z0-9_-]{1,64}$/, 'letters, digits, _ and -, 1 to 64 of them')
  .brand<'VmId'>();
export type VmId = z.output<typeof vmIdSchema>;

/** How the host reaches the agent in the VM; see common/channel for the addresses. */
const guestSchema = z.strictObject({
  channel: z
    .string()
    .regex(/^(?:unix|virtio|tcp):.+$/, 'unix:PATH, virtio:PATH or tcp:HOST:PORT')
    .describe(
      'Where the agent in the VM is reached: unix:/run/vm1.sock, virtio:/run/vm1-port.sock or tcp:HOST:PORT.',
    ),
  notification: z
    .enum(['triggers', 'polling'])
    .default('triggers')
    .describe('triggers: the guest tells when rows come. polling: the host asks at an interval.'),
  pollingIntervalMs: z
    .int()
    .min(1)
    .max(3_600_000)
    .default(1_000)
    .describe('With polling: how often the host asks; ms, 1 to 3600000 (an hour).'),
  tlsDirectory: z
    .string()
    .min(1)
    .optional()
    .describe('Directory of ca.pem, cert.pem and key.pem for mutual TLS; with tcp: only.'),
});

const probeText =
  'none; machine: the whole machine from /proc, when host and VM are one; process: one hypervisor process and its control group.';

const probeAlternatives = [
  z.strictObject({ kind: z.literal('none').describe(probeText) }),
  z.strictObject({ kind: z.literal('machine').describe(probeText) }),
  z.strictObject({
    kind: z.literal('process').describe(probeText),
    pid: z.int().positive().describe('With process: the process id of the hypervisor, 1 or more.'),
  }),
] as const;

/** Which probe measures the VM from outside. */
const probeSchema = z
  .discriminatedUnion('kind', probeAlternatives)
  .superRefine(alternativesRule('kind', probeAlternatives), besideFieldErrors);
export type ProbeDescriptor = z.output<typeof probeSchema>;

const uniqueIds = crossFieldRule(
  z.object({ specifiers: z.array(z.unknown()) }),
  ({ specifiers }) => {
    const firstOf = new Map<string, number>();
    return specifiers.flatMap((specifier, index) => {
      const named = z.object({ id: z.string() }).safeParse(specifier);
      if (!named.success) return [];
      const first = firstOf.get(named.data.id);
      if (first === undefined) {
        firstOf.set(named.data.id, index);
        return [];
      }
      const message = `ids are unique in a VM, and specifiers[${first}] has this one; choose another`;
      return [{ path: ['specifiers', index, 'id'], message }];
    });
  },
);

/**
 * A rule of documents, not of patterns: what was accepted by a version that knew other quantities, and is part of an
 * engine's state or on its way, stays readable.
 */
const knownQuantities = crossFieldRule(
  z.object({
    specifiers: z.array(z.unknown()).default([]),
    visibleToIntermediaries: z.array(z.unknown()).default([]),
  }),
  ({ specifiers, visibleToIntermediaries }) => [
    ...specifiers.flatMap((specifier, index) => {
      const named = z.object({ dataPoints: z.string() }).safeParse(specifier);
      const message = named.success ? quantityProblem(named.data.dataPoints) : undefined;
      return message === undefined ? [] : [{ path: ['specifiers', index, 'dataPoints'], message }];
    }),
    ...visibleToIntermediaries.flatMap((pattern, index) => {
      const message = typeof pattern === 'string' ? quantityProblem(pattern) : undefined;
      return message === undefined ? [] : [{ path: ['visibleToIntermediaries', index], message }];
    }),
  ],
);

const monitoringSchema = z
  .strictObject({
    specifiers: z
      .array(monitoringSpecifierSchema)
      .max(1_024)
      .default([])
      .describe('What is measured and delivered, at most 1024. Default: nothing.'),
    latenessMaxMs: z
      .int()
      .min(0)
      .max(86_400_000)
      .default(5_000)
      .describe('How long a window waits for the rows of a silent guest; ms, at most a day.'),
    visibleToIntermediaries: z
      .array(dataPointPatternSchema)
      .max(64)
      .default([])
      .describe(
        'Patterns of data points that intermediaries may see in the clear on the status stream, at most 64. Default: none.',
      ),
  })
  .prefault({})
  .superRefine(uniqueIds, besideFieldErrors)
  .superRefine(knownQuantities, besideFieldErrors);

function readableRecipients(pem: string, context: z.RefinementCtx): void {
  try {
    parseRecipientPem(pem);
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    context.addIssue({ code: 'custom', message });
  }
}

/** The document of one VM, as far as monitoring needs it. All problems of one are reported at once. */
export const vmDescriptorSchema = z.strictObject({
  apiVersion: z.literal('isobar/v1').describe('Always isobar/v1.'),
  kind: z.literal('VirtualMachine').describe('Always VirtualMachine.'),
  id: vmIdSchema.describe(
    'Names the VM in streams, topics and commands; 1 to 64 of A-Z a-z 0-9 _ -.',
  ),
  revision: z
    .int()
    .positive()
    .default(1)
    .describe(
      'Raised by one with each change; a change states the revision that it was made from.',
    ),
  guest: guestSchema
    .optional()
    .describe('How the host reaches the agent in the VM. Default: there is none.'),
  probe: probeSchema
    .default({ kind: 'none' })
    .describe('Which probe measures the VM from outside. Default: none.'),
  monitoring: monitoringSchema.describe('What the primary site of the VM wants to know.'),
  primarySitePublicKey: z
    .string()
    .max(recipientPemCharsMax)
    .superRefine(readableRecipients)
    .optional()
    .describe(
      'PEM certificates or public keys of the primary site, 1 to 16, RSA (2048 bits or more) or EC; the data stream is sealed for all. Default: it travels in the clear.',
    ),
});
export type VmDescriptor = z.output<typeof vmDescriptorSchema>;
