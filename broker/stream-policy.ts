import { z } from 'zod';

import { streamKinds, type StreamId, type StreamKind } from '../common/wire/frame.ts';
import { vmIdSchema, type VmId } from '../common/wire/vm-descriptor.ts';

/** Which streams a neighbour may bring, or may have. */
export interface StreamPolicy {
  /** Ids of VMs; `all`: every one, also those that come later. */
  readonly vms: 'all' | ReadonlySet<string>;
  readonly kinds: ReadonlySet<StreamKind>;
}

const policyVmsMax = 100_000;

/** Key `relation` of a configuration: the name of an MQTT subtree. */
export const relationNameSchema = z
  .string()
  .regex(/^[A-Za-z0-9_-]{1,64}$/, 'letters, digits, _ and -, 1 to 64 of them');

/** Keys `vms` and `kinds` of a configuration. */
export const policyVmsSchema = z
  .union([z.literal('all'), z.array(vmIdSchema).max(policyVmsMax)])
  .default('all');
export const policyKindsSchema = z
  .array(z.enum(streamKinds))
  .min(1)
  .default([...streamKinds]);

/** VMs that one neighbour is asked for by name: with both kinds, what one request may name. */
const askedVmsMax = 500;

/** Key `ask` of a configuration. */
export const askSchema = z.union([z.literal('all'), z.array(vmIdSchema).max(askedVmsMax)]);

export function streamPolicyOf({
  vms,
  kinds,
}: {
  readonly vms: 'all' | readonly string[];
  readonly kinds: readonly StreamKind[];
}): StreamPolicy {
  return { vms: vms === 'all' ? 'all' : new Set(vms), kinds: new Set(kinds) };
}

export function policyAllows(policy: StreamPolicy, stream: StreamId): boolean {
  return policy.kinds.has(stream.kind) && (policy.vms === 'all' || policy.vms.has(stream.vm));
}

/** Each of `kinds` of each VM. */
export function namedStreams(
  vms: 'all' | readonly VmId[],
  kinds: readonly StreamKind[],
): 'all' | readonly StreamId[] {
  return vms === 'all' ? vms : vms.flatMap((vm) => kinds.map((kind) => ({ vm, kind })));
}
