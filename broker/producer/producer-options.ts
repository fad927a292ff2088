import type { Clock } from '../../common/runtime/clock.ts';
import type { Log } from '../../common/runtime/log.ts';
import type { Random } from '../../common/runtime/random.ts';
import type { LossSigner } from '../../common/signing/loss-signer.ts';
import type { StoredMessage } from '../../common/wire/control-message.ts';
import type { StreamId } from '../../common/wire/frame.ts';
import type { FrameLog } from '../log/frame-log.ts';
import type { LogCursors } from '../log/log-cursors.ts';
import type { MqttTransport } from '../mqtt/mqtt-transport.ts';
import type { KeyStatements } from '../ports.ts';

export interface ProducerOptions {
  /** Neighbours that may subscribe, each by the name of its subtree. */
  readonly relations: readonly string[];
  /** How often heads are announced; silence for three of these tells a consumer to subscribe anew. */
  readonly announceIntervalMs: number;
  /** Frames of a busy stream that share one message. A larger frame goes alone. */
  readonly batchBytesMax: number;
  /** Live frames that wait for a relation's transport; beyond it the oldest of whoever has most are left to queries. */
  readonly liveQueueBytesMax: number;
  /** Control messages that wait for a relation's transport; beyond it they are left out. */
  readonly controlBytesMax: number;
  /** Queries that one relation can have under way; more are refused. */
  readonly queriesMax: number;
}

export const producerDefaults: Omit<ProducerOptions, 'relations'> = {
  announceIntervalMs: 1_000,
  batchBytesMax: 64 * 1_024,
  liveQueueBytesMax: 8 * 1_024 * 1_024,
  controlBytesMax: 2 * 1_024 * 1_024,
  queriesMax: 8,
};

export interface ProducerDeps {
  readonly transport: MqttTransport;
  readonly streamLog: FrameLog;
  readonly cursors: LogCursors;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** Which streams a relation may have; asked for every subscription, frame and query. */
  readonly allows: (relation: string, stream: StreamId) => boolean;
  /** Which keys sign the epochs; absent: nothing is stated. */
  readonly statements?: KeyStatements;
  /** Signs what is lost; absent: it is declared unsigned. */
  readonly losses?: LossSigner;
  /** Hears which frames a consumer says are stored; a relay passes it on. */
  readonly onStored?: (relation: string, message: StoredMessage) => void;
}

/** A producer has one transport: the relations of each that `links` have. */
export function byTransport(
  links: readonly { readonly transport: MqttTransport; readonly relation: string }[],
): (readonly [MqttTransport, readonly string[]])[] {
  const relations = new Map<MqttTransport, string[]>();
  for (const { transport, relation } of links) {
    relations.set(transport, [...(relations.get(transport) ?? []), relation]);
  }
  return [...relations];
}
