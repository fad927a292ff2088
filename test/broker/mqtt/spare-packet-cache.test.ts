import { writeToStream } from 'mqtt-packet';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { EmbeddedBroker } from '../../../broker/mqtt/embedded-broker.ts';
import { MqttClient, mqttClientDefaults } from '../../../broker/mqtt/mqtt-client.ts';
import { SystemClock } from '../../../common/runtime/clock.ts';
import { silentLog } from '../../../common/runtime/log.ts';
import { SystemRandom } from '../../../common/runtime/random.ts';
import { eventually } from '../../support/eventually.ts';

const deps = { clock: new SystemClock(), random: new SystemRandom(), log: silentLog };

describe('MQTT packets', () => {
  let broker: EmbeddedBroker;
  beforeEach(() => {
    writeToStream.cacheNumbers = true;
    broker = new EmbeddedBroker(deps);
  });
  afterEach(() => broker.stop());

  test('are written by broker and client without a cache of all numbers, and arrive', async () => {
    await broker.start();
    expect(writeToStream.cacheNumbers).toBe(false);
    writeToStream.cacheNumbers = true;
    const client = new MqttClient(deps, { ...mqttClientDefaults, url: broker.url });
    await client.start();
    try {
      expect(writeToStream.cacheNumbers).toBe(false);
      const received: string[] = [];
      await client.subscribe('n/a/#', 1, (topic) => {
        received.push(topic);
      });
      await eventually(() => client.isConnected, { timeoutMs: 10_000 });
      const topics = [`n/a/${'x'.repeat(300)}`, 'n/a/y'];
      for (const topic of topics) await client.publish(topic, new Uint8Array(70_000), 1);
      await eventually(() => received.length === topics.length, { timeoutMs: 10_000 });
      expect(received).toEqual(topics);
    } finally {
      await client.stop();
    }
  });
});
