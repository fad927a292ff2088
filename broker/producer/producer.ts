import type { Cancel } from '../../common/runtime/clock.ts';
import type { Service } from '../../common/runtime/service.ts';
import { StageCounters } from '../../common/runtime/stage-counters.ts';
import type { LossClaim } from '../../common/signing/loss-declaration.ts';
import { isDiskRefusal } from '../../common/sqlite/database.ts';
import { decodeUpstream } from '../../common/wire/control-message.ts';
import type { EncodedFrame } from '../../common/wire/frame.ts';
import { relationTopics } from '../mqtt/topics.ts';
import type { FrameForwarder } from '../ports.ts';
import type { ProducerDeps, ProducerOptions } from './producer-options.ts';
import { ProducerRelation } from './producer-relation.ts';
import type { StatedEpoch } from './statement-sender.ts';

const instanceBytes = 8;

/**
 * The GMA producer of one stream log: forwards committed frames to subscribed consumers at once, announces heads, answers
 * range queries as far as credit goes, and keeps the subscribers' cursors. common/wire/control-message.ts draws the
 * exchange.
 */
export class Producer implements Service, FrameForwarder {
  readonly name = 'producer';
  /** Frames for a subscribed consumer, live or asked for. Those that nobody subscribes to stay in the log, uncounted. */
  readonly counters = new StageCounters();
  readonly #deps: ProducerDeps;
  readonly #options: ProducerOptions;
  readonly #relations: readonly ProducerRelation[];
  #cancels: Cancel[] = [];

  constructor(deps: ProducerDeps, options: ProducerOptions) {
    this.#deps = deps;
    this.#options = options;
    const instance = Buffer.from(deps.random.bytes(instanceBytes)).toString('hex');
    this.#relations = options.relations.map(
      (relation) => new ProducerRelation(deps, options, relation, instance, this.counters),
    );
  }

  async start(): Promise<void> {
    for (const relation of this.#relations) {
      const { upControl } = relationTopics(relation.relation);
      const cancel = await this.#deps.transport.subscribe(upControl, 1, (_topic, payload) => {
        this.#onControl(relation, payload);
      });
      this.#cancels.push(cancel);
    }
    const { clock, statements } = this.#deps;
    const cancelKeyChange = statements?.signer.onKeyChange(() => {
      for (const relation of this.#relations) relation.stateAll();
    });
    if (cancelKeyChange !== undefined) this.#cancels.push(cancelKeyChange);
    this.#cancels.push(
      clock.every(this.#options.announceIntervalMs, () => {
        for (const relation of this.#relations) {
          this.#unlessDiskRefuses(relation, () => {
            relation.tick();
          });
        }
      }),
    );
  }

  stop(): Promise<void> {
    for (const cancel of this.#cancels.splice(0)) cancel();
    for (const relation of this.#relations) relation.end();
    return Promise.resolve();
  }

  forward(frames: readonly EncodedFrame[]): void {
    for (const relation of this.#relations) relation.forward(frames);
    const newest = frames.at(-1);
    if (newest !== undefined) {
      this.counters.lagMs = (this.#deps.clock.wallUs() - newest.header.producedAtUs) / 1_000;
    }
  }

  /**
   * Frames that were committed to the log by now, and not all in the order of their numbers: heads are announced anew,
   * and what was never forwarded, as it came late itself, is offered to whoever lacks it.
   */
  committed(frames: readonly EncodedFrame[], wasForwarded: (frame: EncodedFrame) => boolean): void {
    for (const relation of this.#relations) relation.committed(frames, wasForwarded);
  }

  /** Epochs whose keys are known only now: stated downstream at once. */
  state(epochs: readonly StatedEpoch[]): void {
    for (const relation of this.#relations) relation.state(epochs);
  }

  /** The neighbour of `relation` may have more than before: every epoch is announced to it again. */
  announce(relation: string): void {
    this.#relations.find((each) => each.relation === relation)?.announceAll();
  }

  /** Frames that are lost, with a durable record: told downstream at once. */
  declareLost(claims: readonly LossClaim[]): void {
    for (const relation of this.#relations) relation.declareLost(claims);
  }

  /** Whether the neighbour of `relation` has subscribed and is connected, as far as that is known here. */
  hasSession(relation: string): boolean {
    const { transport } = this.#deps;
    const isConnected =
      transport.hasReader?.(relationTopics(relation).downControl) ?? transport.isConnected;
    const known = this.#relations.find((each) => each.relation === relation);
    return isConnected && known?.hasSession === true;
  }

  #onControl(relation: ProducerRelation, payload: Uint8Array): void {
    if (!relation.controlQuota.take(payload)) {
      this.counters.failAtOnce();
      this.#deps.log.warn('control-quota-exceeded', { relation: relation.relation });
      return;
    }
    const decoded = decodeUpstream(payload);
    if (!decoded.ok) {
      this.counters.failAtOnce();
      this.#deps.log.warn('control-message-refused', {
        relation: relation.relation,
        code: decoded.code,
        rule: decoded.rule,
      });
      return;
    }
    this.#unlessDiskRefuses(relation, () => {
      relation.onMessage(decoded.message);
    });
  }

  /** What a disk refuses counts as not received: the next tick comes, and the consumer asks again. */
  #unlessDiskRefuses(relation: ProducerRelation, work: () => void): void {
    try {
      work();
    } catch (cause) {
      if (!isDiskRefusal(cause)) throw cause;
      this.counters.failAtOnce();
      this.#deps.log.error('log-not-usable', {
        relation: relation.relation,
        cause: String(cause),
      });
    }
  }
}
