import { join } from 'node:path';

import { expect, test } from 'vitest';

import { EmbeddedBroker } from '../../broker/mqtt/embedded-broker.ts';
import { silentLog } from '../../common/runtime/log.ts';
import { kpiDataPoint } from '../../common/wire/data-point.ts';
import type { Delivery } from '../../common/wire/delivery.ts';
import { buildPrimarySite } from '../../primary-site/build-primary-site.ts';
import { primarySiteConfigSchema } from '../../primary-site/primary-site-config.ts';
import { eventually } from '../support/eventually.ts';
import { Origin } from '../support/origin.ts';
import { dataStream, rowRecord, sampleStartUs } from '../support/sample-frames.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';

const mean: Delivery = {
  kind: 'processed',
  specifierId: 'means',
  descriptorRevision: 1,
  dataPoint: kpiDataPoint('users.csv', 'column1'),
  window: { startMs: 0, endMs: 1_000 },
  revision: 0,
  predicateState: null,
  format: 'mean',
  value: 41,
  timeUs: 999_999,
  count: 2,
  skippedCount: 0,
};

test('JSON topics for any MQTT client: one message for each measurement, under json/<vm>/', async () => {
  using directory = temporaryDirectory();
  const broker = new EmbeddedBroker({ log: silentLog });
  await broker.start();
  const received: [string, unknown][] = [];
  await broker.subscribe('json/vm1/#', 0, (topic, payload) => {
    received.push([topic, JSON.parse(Buffer.from(payload).toString('utf8'))]);
  });
  const config = primarySiteConfigSchema.parse({
    dataDirectory: join(directory.path, 'data'),
    controlSocket: join(directory.path, 'api.sock'),
    mqttUrl: broker.url,
  });
  const { service, consumer } = buildPrimarySite(config, { log: silentLog });
  const origin = new Origin(broker, join(directory.path, 'log.db'), {
    relations: ['primary-site'],
  });
  const stream = dataStream('vm1');
  await origin.producer.start();
  origin.openEpoch(stream);
  await service.start();
  await eventually(() => consumer.isLive, { timeoutMs: 10_000 });
  origin.append(stream, [rowRecord('users.csv', sampleStartUs, [42, 'many'])]);
  await eventually(() => received.length === 2, { timeoutMs: 10_000 });
  expect(received.map(([topic]) => topic)).toEqual([
    'json/vm1/kpi/users-2Ecsv/column1',
    'json/vm1/kpi/users-2Ecsv/column2',
  ]);
  expect(received[0]?.[1]).toMatchObject({
    vm: 'vm1',
    dataPoint: 'kpi/users.csv/column1',
    timeUs: sampleStartUs,
    value: 42,
  });
  origin.append(stream, [{ kind: 'delivery', delivery: mean }]);
  await eventually(() => received.length === 3, { timeoutMs: 10_000 });
  expect(received[2]?.[1]).toMatchObject({ value: 41, count: 2, uncertaintyUs: null });
  await service.stop();
  await origin.close();
  await broker.stop();
});
