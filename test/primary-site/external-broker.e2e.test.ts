import { join } from 'node:path';

import { expect, onTestFinished, test } from 'vitest';

import { SystemClock } from '../../common/runtime/clock.ts';
import { silentLog } from '../../common/runtime/log.ts';
import { buildHostCollector } from '../../host-collector/build-host-collector.ts';
import { hostCollectorConfigSchema } from '../../host-collector/config.ts';
import { buildPrimarySite } from '../../primary-site/build-primary-site.ts';
import { primarySiteConfigSchema } from '../../primary-site/primary-site-config.ts';
import { startGuest } from '../support/channel-fixture.ts';
import { eventually } from '../support/eventually.ts';
import {
  freePort,
  prepareExternalBroker,
  startExternalBroker,
} from '../support/external-broker.ts';
import { MemoryRowStore } from '../support/memory-row-store.ts';
import { describeUnless } from '../support/requirements.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';

const timeout = { timeoutMs: 40_000 };
const rowCount = 3_000;
const publishIntervalMs = 2;
const crashCount = 3;
const prepared = prepareExternalBroker('mosquitto');

describeUnless(prepared.ok ? undefined : prepared.reason, 'a broker that others run', () => {
  test('kill -9 of it, again and again, under load: the exact set arrives once, in order', async () => {
    if (!prepared.ok) return;
    using directory = temporaryDirectory();
    const port = await freePort();
    let broker = await startExternalBroker('mosquitto', prepared.program, port);
    onTestFinished(() => broker.stop());
    const mqttUrl = broker.url;
    const clock = new SystemClock();
    const store = new MemoryRowStore();
    const channel = `unix:${join(directory.path, 'guest.sock')}`;
    const guest = await startGuest(store, { address: channel });
    const collector = buildHostCollector(
      hostCollectorConfigSchema.parse({
        dataDirectory: join(directory.path, 'collector'),
        mqttUrl,
        synchronous: 'NORMAL',
      }),
      { log: silentLog },
    );
    await collector.service.start();
    await collector.vms.add({
      apiVersion: 'isobar/v1',
      kind: 'VirtualMachine',
      id: 'vm1',
      guest: { channel },
      monitoring: { specifiers: [{ id: 'kpi', dataPoints: 'kpi/**' }] },
    });
    const site = buildPrimarySite(
      primarySiteConfigSchema.parse({
        dataDirectory: join(directory.path, 'reader'),
        controlSocket: join(directory.path, 'reader.sock'),
        mqttUrl,
      }),
    );
    await site.service.start();
    let published = 0;
    const cancel = clock.every(publishIntervalMs, () => {
      if (published === rowCount) return;
      published += 1;
      const row = { table: 'users', columns: ['column1'], values: [published] };
      store.publish([row], 'unencrypted', clock.wallUs());
    });
    onTestFinished(() => {
      cancel();
    });
    const stored = (): readonly unknown[] =>
      site.store.reader
        .query({ pattern: 'kpi/**' }, rowCount * 2)
        .readings.map(({ value }) => value);
    for (let crash = 1; crash <= crashCount; crash += 1) {
      const goal = (rowCount / (crashCount + 1)) * crash;
      await eventually(() => published >= goal && stored().length > goal / 2, timeout);
      await broker.stop();
      broker = await startExternalBroker('mosquitto', prepared.program, port);
    }
    await eventually(() => stored().length >= rowCount, timeout);
    expect(stored()).toEqual(Array.from({ length: rowCount }, (_, index) => index + 1));
    await site.service.stop();
    await collector.service.stop();
    await guest.stop();
  });
});
