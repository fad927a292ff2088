import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { describe, expect, test } from 'vitest';

import { silentLog } from '../../common/runtime/log.ts';
import { compiledEntry } from '../../common/runtime/package-root.ts';
import { openDatabase } from '../../common/sqlite/database.ts';
import type { Delivery } from '../../common/wire/delivery.ts';
import { decodeFrame } from '../../common/wire/frame-codec.ts';
import { buildHostCollector } from '../../host-collector/build-host-collector.ts';
import { hostCollectorConfigSchema } from '../../host-collector/config.ts';
import { mqttStreams } from '../../host-collector/origin/mqtt-streams.ts';
import { eventually } from '../support/eventually.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';

const descriptor = {
  apiVersion: 'isobar/v1',
  kind: 'VirtualMachine',
  id: 'vm1',
  probe: { kind: 'machine' },
  monitoring: {
    specifiers: [
      { id: 'infra', dataPoints: 'infra/**', monitoringIntervalMs: 50, deliveryIntervalMs: 200 },
      { id: 'cpu', dataPoints: 'infra/cpu/time_us', format: 'max', deliveryIntervalMs: 200 },
    ],
    visibleToIntermediaries: ['infra/cpu/*'],
  },
};

async function post(
  api: { request: (path: string, init: object) => Response | Promise<Response> },
  path: string,
  method: string,
  body: object,
): Promise<{ status: number; body: Record<string, unknown> }> {
  const response = await api.request(path, { method, body: JSON.stringify(body) });
  return { status: response.status, body: (await response.json()) as Record<string, unknown> };
}

describe('host collector', () => {
  test('measures this machine into both streams, and takes VMs and changes hot by its control API', async () => {
    using directory = temporaryDirectory();
    const config = hostCollectorConfigSchema.parse({
      dataDirectory: directory.path,
      mqttPort: 0,
      statusIntervalMs: 100,
      probeIntervalMinMs: 20,
    });
    const frames: Uint8Array[] = [];
    const collector = buildHostCollector(config, {
      log: silentLog,
      makeStreams: (deps, given) => {
        const streams = mqttStreams(deps, given);
        return {
          ...streams,
          forwarder: {
            forward: (committed) => {
              frames.push(...committed.map(({ bytes }) => bytes));
              streams.forwarder.forward(committed);
            },
          },
        };
      },
    });
    await collector.service.start();
    try {
      expect(
        (await post(collector.api, '/v1/vms', 'POST', { ...descriptor, colour: 1 })).status,
      ).toBe(422);
      expect((await post(collector.api, '/v1/vms', 'POST', descriptor)).status).toBe(201);
      const change = { revision: 1, monitoring: { ...descriptor.monitoring, latenessMaxMs: 9 } };
      const path = '/v1/vms/vm1/monitoring';
      expect((await post(collector.api, path, 'PUT', change)).body).toMatchObject({ revision: 2 });
      expect((await post(collector.api, path, 'PUT', change)).body).toMatchObject({
        error: { code: 'revision-conflict' },
      });
      const records = await eventually(
        () => {
          const all = frames.flatMap((bytes) => {
            const decoded = decodeFrame(bytes);
            if (!decoded.ok) throw new Error('a frame that was forwarded can be decoded');
            const { header } = decoded.frame;
            return decoded.frame.records.map((record) => ({ stream: header.stream.kind, record }));
          });
          const deliveries = all.flatMap(({ stream, record }): [string, Delivery][] =>
            record.kind === 'delivery' ? [[stream, record.delivery]] : [],
          );
          const isComplete =
            deliveries.some(
              ([stream, item]) =>
                stream === 'data' && item.kind === 'raw' && item.measurements.length > 8,
            ) &&
            deliveries.some(
              ([stream, item]) =>
                stream === 'status' && item.kind === 'processed' && (item.value ?? 0) > 0,
            );
          return isComplete && all;
        },
        { timeoutMs: 10_000 },
      );
      const statuses = records.flatMap(({ record }) => (record.kind === 'status' ? [record] : []));
      expect(statuses.at(-1)).toMatchObject({ vmState: 'running' });
      const status = await collector.api.request('/v1/status');
      expect(await status.json()).toMatchObject({
        vms: [{ vm: 'vm1', revision: 2, vmState: 'running' }],
        stages: { 'origin/vm1': { failed: 0 } },
      });
      expect((await collector.api.request('/v1/vms/vm1', { method: 'DELETE' })).status).toBe(204);
      expect((await collector.api.request('/v1/vms/vm1')).status).toBe(404);
    } finally {
      await collector.service.stop();
    }
  });

  test('one stored VM descriptor that newer rules refuse is set aside and reported, and all other VMs run', async () => {
    using directory = temporaryDirectory();
    const config = hostCollectorConfigSchema.parse({ dataDirectory: directory.path, mqttPort: 0 });
    const before = buildHostCollector(config, { log: silentLog });
    await before.service.start();
    for (const id of ['vm1', 'vm2', 'vm3']) await before.vms.add({ ...descriptor, id });
    await before.service.stop();
    const database = openDatabase(join(directory.path, 'collector.db'));
    database.exec(
      `UPDATE collector_descriptor SET document = replace(document, 'infra/**', 'infra/gpu/*')
       WHERE vm IN ('vm1', 'vm3')`,
    );
    database.close();

    const collector = buildHostCollector(config, { log: silentLog });
    await collector.service.start();
    try {
      const get = async (path: string): Promise<unknown> =>
        (await collector.api.request(path)).json();
      const setAside = { vm: 'vm1', revision: 1, vmState: 'set-aside' };
      expect(await get('/v1/status')).toMatchObject({
        vms: [
          { vm: 'vm2', vmState: 'running' },
          { ...setAside, problem: expect.stringContaining('infra/cpu/usage_ratio') as unknown },
          { vm: 'vm3', vmState: 'set-aside' },
        ],
      });
      expect(await get('/v1/vms')).toMatchObject({
        vms: [{ id: 'vm2' }],
        refused: [
          { vm: 'vm1', reason: expect.stringContaining('isobar vm set-monitoring vm1') as unknown },
          { vm: 'vm3' },
        ],
      });
      const change = { revision: 1, monitoring: descriptor.monitoring };
      const path = '/v1/vms/vm1/monitoring';
      expect((await post(collector.api, path, 'PUT', change)).body).toMatchObject({ revision: 2 });
      expect((await collector.api.request('/v1/vms/vm3', { method: 'DELETE' })).status).toBe(204);
      await eventually(() => collector.vms.status().every(({ vmState }) => vmState === 'running'), {
        timeoutMs: 10_000,
      });
      expect(collector.vms.status().map(({ vm }) => vm)).toEqual(['vm1', 'vm2']);
    } finally {
      await collector.service.stop();
    }
    const after = openDatabase(join(directory.path, 'collector.db'), { readonly: true });
    const open = after
      .prepare('SELECT vm FROM stream_log_epochs WHERE closed = 0 GROUP BY vm ORDER BY vm')
      .pluck()
      .all();
    after.close();
    expect(open).toEqual(['vm1', 'vm2']);
  });

  test('--check-config reports all problems together and exits with 78', async () => {
    using directory = temporaryDirectory();
    const path = join(directory.path, 'bad.json');
    writeFileSync(path, JSON.stringify({ dataDirectory: '', mqttPort: -1, surprise: true }));
    const child = spawn(process.execPath, [
      compiledEntry('host-collector/main.ts'),
      '--config',
      path,
      '--check-config',
    ]);
    let text = '';
    child.stderr.on('data', (chunk: Buffer) => {
      text += chunk.toString();
    });
    const [code] = (await once(child, 'close')) as [number];
    expect(code).toBe(78);
    for (const key of ['dataDirectory', 'mqttPort', 'surprise']) expect(text).toContain(key);
  });
});
