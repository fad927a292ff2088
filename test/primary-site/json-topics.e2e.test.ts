import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

import { expect, onTestFinished, test } from 'vitest';

import { EmbeddedBroker } from '../../broker/mqtt/embedded-broker.ts';
import { silentLog } from '../../common/runtime/log.ts';
import { buildPrimarySite } from '../../primary-site/build-primary-site.ts';
import { primarySiteConfigSchema } from '../../primary-site/primary-site-config.ts';
import { eventually } from '../support/eventually.ts';
import { prepareForeignSubscriber } from '../support/external-broker.ts';
import { Origin } from '../support/origin.ts';
import { describeUnless } from '../support/requirements.ts';
import { dataStream, rowRecord, sampleStartUs } from '../support/sample-frames.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';

const timeout = { timeoutMs: 15_000 };
const subscriber = prepareForeignSubscriber();
const messageCount = 10;

describeUnless(
  subscriber.ok ? undefined : subscriber.reason,
  'JSON topics, read by mosquitto_sub',
  () => {
    test('one message for each measurement, on topics of [A-Za-z0-9_-] levels below json/<vm>/', async () => {
      if (!subscriber.ok) return;
      using directory = temporaryDirectory();
      const broker = new EmbeddedBroker({ log: silentLog });
      await broker.start();
      const config = primarySiteConfigSchema.parse({
        dataDirectory: join(directory.path, 'data'),
        controlSocket: join(directory.path, 'api.sock'),
        mqttUrl: broker.url,
      });
      const { service, consumer } = buildPrimarySite(config, { log: silentLog });
      const options = { relations: ['primary-site'] };
      const origin = new Origin(broker, join(directory.path, 'log.db'), options);
      const stream = dataStream('vm1');
      await origin.producer.start();
      origin.openEpoch(stream);
      await service.start();
      await eventually(() => consumer.isLive, timeout);
      const { port } = new URL(broker.url);
      const client = spawn(
        subscriber.program,
        ['-h', '127.0.0.1', '-p', port, '-t', 'json/vm1/#', '-F', '%t %p'],
        { env: subscriber.env, stdio: ['ignore', 'pipe', 'inherit'] },
      );
      onTestFinished(() => {
        client.kill('SIGKILL');
      });
      const lines: string[] = [];
      createInterface(client.stdout).on('line', (line) => {
        lines.push(line);
      });
      // It says nothing when it has subscribed, so it is spoken to until it answers.
      await eventually(async () => {
        await broker.publish('json/vm1/greeting', Buffer.from('{}'), 0);
        return lines.length > 0;
      }, timeout);
      for (let index = 0; index < messageCount / 2; index += 1) {
        const record = rowRecord('app/users.é.csv', sampleStartUs + index, [index, 2n ** 60n]);
        origin.append(stream, [record]);
      }
      const messages = await eventually(() => {
        const found = lines.filter((line) => line.startsWith('json/vm1/kpi/'));
        return found.length >= messageCount && found;
      }, timeout);
      const exited = once(client, 'exit');
      client.kill('SIGTERM');
      await exited;
      await service.stop();
      await origin.close();
      await broker.stop();

      const parsed = messages.map((line) => {
        const space = line.indexOf(' ');
        const body = JSON.parse(line.slice(space + 1)) as { value: unknown; timeUs: number };
        return { topic: line.slice(0, space), value: body.value, timeUs: body.timeUs };
      });
      const table = 'json/vm1/kpi/app-2Fusers-2E-C3-A9-2Ecsv';
      expect(parsed).toEqual(
        Array.from({ length: messageCount }, (_, index) => {
          const row = Math.floor(index / 2);
          const timeUs = sampleStartUs + row;
          return index % 2 === 0
            ? { topic: `${table}/column1`, value: row, timeUs }
            : { topic: `${table}/column2`, value: { integer: String(2n ** 60n) }, timeUs };
        }),
      );
    });
  },
);
