import { z } from 'zod';

import { vmDescriptorSchema } from '../wire/vm-descriptor.ts';
import { stageCountsSchema } from './stage-answer.ts';

/** Where the host collector's control API has what. */
export const collectorPaths = {
  /** GET lists, POST adds a descriptor. */
  vms: '/v1/vms',
  /** GET, DELETE */
  vm: (id: string): string => `/v1/vms/${encodeURIComponent(id)}`,
  /** PUT `{revision, monitoring}`: compare-and-set. */
  monitoring: (id: string): string => `/v1/vms/${encodeURIComponent(id)}/monitoring`,
  /** GET */
  status: '/v1/status',
} as const;

/** One descriptor: the answer to GET and POST, and to PUT of its monitoring part. */
export const vmAnswerSchema = vmDescriptorSchema;

export const vmListAnswerSchema = z.object({
  vms: z.array(vmDescriptorSchema),
  /** VMs that are set aside, as this version refuses what is stored of them; `reason` says what to do. */
  refused: z.array(z.object({ vm: z.string(), revision: z.int(), reason: z.string() })).default([]),
});

/** Who may subscribe. */
const collectorNeighbourSchema = z.object({
  relation: z.string(),
  /** It has subscribed, and is connected. */
  isLive: z.boolean(),
  /** Why one that we dial can't be reached. */
  failure: z.string().nullable().default(null),
});
export type CollectorNeighbour = z.output<typeof collectorNeighbourSchema>;

export const collectorStatusSchema = z.looseObject({
  neighbours: z.array(collectorNeighbourSchema).default([]),
  /** Stages that all VMs share. */
  stages: z.record(z.string(), stageCountsSchema).default({}),
  vms: z.array(
    z.looseObject({
      vm: z.string(),
      revision: z.int().positive(),
      vmState: z.string(),
      /** Why nothing is measured of it, and what to do. */
      problem: z.string().optional(),
      /** Rows and samples. */
      origin: stageCountsSchema,
      /** What keeps failing on the channel of a guest that can be reached. */
      guestTrouble: z
        .object({
          sinceUs: z.int(),
          reason: z.string(),
          /** In a row. */
          failureCount: z.int().positive(),
        })
        .nullable()
        .default(null),
    }),
  ),
});
