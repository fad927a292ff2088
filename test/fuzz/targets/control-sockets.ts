import assert from 'node:assert';
import { connect } from 'node:net';
import { join } from 'node:path';

import { silentLog } from '../../../common/runtime/log.ts';
import { buildHostCollector } from '../../../host-collector/build-host-collector.ts';
import { hostCollectorConfigSchema } from '../../../host-collector/config.ts';
import { buildPrimarySite } from '../../../primary-site/build-primary-site.ts';
import { primarySiteConfigSchema } from '../../../primary-site/primary-site-config.ts';
import { eventually } from '../../support/eventually.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';
import { CountingLog } from '../counting-log.ts';
import type { FuzzRandom } from '../fuzz-random.ts';
import type { FuzzTarget, RunningFuzzTarget } from '../fuzz-target.ts';

const timeoutMs = 20_000;
const parts = ['collector', 'reader'] as const;
const vm = {
  apiVersion: 'isobar/v1',
  kind: 'VirtualMachine',
  id: 'vm1',
  monitoring: { specifiers: [{ id: 'a', dataPoints: 'kpi/**' }] },
};
const paths = [
  '/v1/vms',
  '/v1/vms/vm1',
  '/v1/vms/vm1/monitoring',
  '/v1/check',
  '/v1/status',
  '/v1/process',
  '/v1/query',
  '/v1/query?pattern=kpi/**&limit=5&sinceUs=0&untilUs=5&vm=vm1',
  '/v1/data-points',

  '/v1/watch?after=0',
  '/v1/query?sinceUs=-1',
  '/v1/query?limit=99999999',
  '/%00',
  '/v1/vms/%ff',
];
const bodies = [vm, { revision: 1, monitoring: vm.monitoring }, { revision: -1 }, [], null].map(
  (body) => JSON.stringify(body),
);
const methods = ['GET', 'POST', 'PUT', 'DELETE', 'HEAD', 'OPTIONS', 'PATCH', 'TRACE'];

/** HTTP over the control sockets of a host collector and of a primary site; the first byte says whose. */
export const controlSockets: FuzzTarget = {
  name: 'control-sockets',
  dictionary: ['content-length: 5\r\n', 'transfer-encoding: chunked\r\n', 'host: \r\n', '\r\n\r\n'],
  inputBytesMax: 262_144,
  start: startParts,
};

async function startParts(): Promise<RunningFuzzTarget> {
  const directory = temporaryDirectory();
  const counting = new CountingLog();
  const at = (name: string): string => join(directory.path, name);
  const collector = buildHostCollector(
    hostCollectorConfigSchema.parse({
      dataDirectory: at('collector'),
      controlSocket: at('collector.sock'),
      mqttPort: 0,
    }),
    { log: counting.log },
  );
  await collector.service.start();
  const reader = buildPrimarySite(
    primarySiteConfigSchema.parse({
      dataDirectory: at('reader'),
      controlSocket: at('reader.sock'),
      mqttUrl: 'mqtt://127.0.0.1:9',
      relation: 'reader',
      jsonTopics: false,
    }),
    { log: silentLog },
  );
  await reader.service.start();
  return {
    samples: parts.flatMap((_part, index) =>
      paths
        .map((path) => request(index, 'GET', path, ''))
        .concat(bodies.map((body) => request(index, 'POST', '/v1/check', body))),
    ),
    generate: (random: FuzzRandom) =>
      request(
        random.below(parts.length),
        random.pick(methods),
        random.pick(paths),
        random.pick(bodies),
      ),
    run: async (input) => {
      const part = parts[(input[0] ?? 0) % parts.length] ?? 'reader';
      for (const status of await exchange(at(`${part}.sock`), input.subarray(1))) {
        assert.notEqual(status, '500');
      }
    },
    checkStillWorks: async () => {
      for (const [index, part] of parts.entries()) {
        const input = request(index, 'GET', '/v1/status', '');
        assert.deepEqual(await exchange(at(`${part}.sock`), input.subarray(1)), ['200']);
      }
      counting.check();
    },
    stop: async () => {
      await reader.service.stop();
      await collector.service.stop();
      directory[Symbol.dispose]();
    },
  };
}

function request(part: number, method: string, path: string, body: string): Buffer {
  const head = `${method} ${path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: ${Buffer.byteLength(body)}`;
  const text = `${head}\r\ncontent-type: application/json\r\n\r\n${body}`;
  return Buffer.concat([Buffer.from([part]), Buffer.from(text)]);
}

/** The statuses of what came back until the server ended the connection: we have ended our side. */
async function exchange(path: string, input: Uint8Array): Promise<readonly string[]> {
  const socket = connect(path);
  let received = '';
  let isClosed = false;
  socket.on('error', () => {});
  socket.on('data', (chunk: Buffer) => {
    received += chunk.toString('latin1');
  });
  socket.on('close', () => {
    isClosed = true;
  });
  socket.end(input);
  await eventually(() => isClosed, { timeoutMs, pollMs: 1 });
  return Array.from(received.matchAll(/^HTTP\/1\.1 (\d{3})/gm), ([, status = '']) => status);
}
