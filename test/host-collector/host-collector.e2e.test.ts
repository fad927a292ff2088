import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { describe, expect, test } from 'vitest';

import { silentLog } from '../../common/runtime/log.ts';
import { compiledEntry } from '../../common/runtime/package-root.ts';
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
        stages: { 'origin vm1': { failed: 0 } },
      });
      expect((await collector.api.request('/v1/vms/vm1', { method: 'DELETE' })).status).toBe(204);
      expect((await collector.api.request('/v1/vms/vm1')).status).toBe(404);
    } finally {
      await collector.service.stop();
    }
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
