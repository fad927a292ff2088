import type { MqttTransport } from '../broker/mqtt/mqtt-transport.ts';
import type { Log } from '../common/runtime/log.ts';
import type { Service } from '../common/runtime/service.ts';
import { StageCounters } from '../common/runtime/stage-counters.ts';
import { readingJson } from './api/reading-json.ts';
import type { PrimaryStore } from './store/primary-store.ts';
import type { Reading } from './store/reading-reader.ts';
import { watchReadings } from './watch-readings.ts';

/**
 * The topic of a reading: `json/<vm>/<data point>`, its segments percent-decoded and made of [A-Za-z0-9_-] only, because
 * some brokers refuse more (NATS `.`): every other byte of the UTF-8 text, and `-` itself, is `-` and two hex digits.
 * `kpi/app%2Fusers.csv/column1` of vm1 is `json/vm1/kpi/app-2Fusers-2Ecsv/column1`.
 */
export function jsonTopic(vm: string, dataPoint: string): string {
  const levels = dataPoint.split('/').map((segment) => topicLevel(decodeURIComponent(segment)));
  return ['json', topicLevel(vm), ...levels].join('/');
}

function topicLevel(text: string): string {
  let level = '';
  for (const byte of Buffer.from(text, 'utf8')) {
    const char = String.fromCharCode(byte);
    level += /[A-Za-z0-9_]/.test(char)
      ? char
      : `-${byte.toString(16).toUpperCase().padStart(2, '0')}`;
  }
  return level;
}

/**
 * Publishes every reading as one JSON message for any MQTT client, QoS 0, from the start of this part on: a live view
 * without promises. A broker that is slow or away makes it skip (counted), never the store wait.
 */
export class JsonTopics implements Service {
  readonly name = 'json-topics';
  /** Readings: published (forwarded), `dropped` without a broker, refused by it (failed). */
  readonly counters = new StageCounters();
  readonly #deps: {
    readonly store: PrimaryStore;
    readonly transport: MqttTransport;
    readonly log: Log;
  };
  #abort = new AbortController();
  #running: Promise<void> = Promise.resolve();

  constructor(deps: {
    readonly store: PrimaryStore;
    readonly transport: MqttTransport;
    readonly log: Log;
  }) {
    this.#deps = deps;
  }

  start(): Promise<void> {
    this.#abort = new AbortController();
    this.#running = this.#publishAll(this.#abort.signal);
    return Promise.resolve();
  }

  async stop(): Promise<void> {
    this.#abort.abort();
    await this.#running;
  }

  async #publishAll(signal: AbortSignal): Promise<void> {
    for await (const readings of watchReadings(this.#deps.store, { pattern: '**' }, {}, signal)) {
      this.counters.accepted += readings.length;
      if (this.#deps.transport.isConnected) await this.#publish(readings);
      else this.counters.dropped += readings.length;
    }
  }

  async #publish(readings: readonly Reading[]): Promise<void> {
    const outcomes = await Promise.allSettled(
      readings.map((reading) => {
        const payload = Buffer.from(JSON.stringify(readingJson(reading)), 'utf8');
        return this.#deps.transport.publish(jsonTopic(reading.vm, reading.dataPoint), payload, 0);
      }),
    );
    const failed = outcomes.filter(({ status }) => status === 'rejected').length;
    this.counters.failed += failed;
    this.counters.forwarded += readings.length - failed;
    if (failed > 0) this.#deps.log.debug('json-not-published', { failed });
  }
}
