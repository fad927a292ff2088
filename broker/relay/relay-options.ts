import type { StreamId } from '../../common/wire/frame.ts';
import type { MqttTransport } from '../mqtt/mqtt-transport.ts';
import type { NeighbourQuotas } from '../quota/byte-quotas.ts';
import { policyAllows, type StreamPolicy } from '../stream-policy.ts';

/** A neighbour towards the VM: its producer, our consumer. */
export interface UpstreamLink {
  readonly relation: string;
  readonly transport: MqttTransport;
  readonly may: StreamPolicy;
  readonly quotas: UpstreamQuotas;
}

/** How much a neighbour may bring. */
export interface UpstreamQuotas extends NeighbourQuotas {
  /** VMs that it may name; beyond it one whose frames are all gone gives its place up. */
  readonly vmsMax: number;
}

/** A neighbour towards the primary site: our producer, its consumer. */
export interface DownstreamLink {
  readonly relation: string;
  readonly transport: MqttTransport;
  readonly may: StreamPolicy;
  /**
   * On the way to the primary site: what its final reader stored is told upstream. An extra consumer is not, though
   * the log keeps frames for it as well.
   */
  readonly isStanding: boolean;
  /** Whether it asked for a stream, of those it may have; without it gets all of them. */
  readonly hasAskedFor?: (stream: StreamId) => boolean;
}

/** Whether a neighbour gets a stream: it may, and asked where it has to. */
export function getsStream(link: DownstreamLink, stream: StreamId): boolean {
  return policyAllows(link.may, stream) && (link.hasAskedFor?.(stream) ?? true);
}
