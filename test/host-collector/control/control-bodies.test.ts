import { once } from 'node:events';
import { connect } from 'node:net';
import { join } from 'node:path';

import { expect, test } from 'vitest';

import { silentLog } from '../../../common/runtime/log.ts';
import { buildHostCollector } from '../../../host-collector/build-host-collector.ts';
import { hostCollectorConfigSchema } from '../../../host-collector/config.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

const mebibyte = 1_048_576;

/** The status of the first answer to `text`. */
async function statusOf(path: string, text: string): Promise<string | undefined> {
  const socket = connect(path);
  socket.on('error', () => {});
  socket.write(text);
  const [chunk] = (await once(socket, 'data')) as [Buffer];
  socket.destroy();
  return /^HTTP\/1\.1 (\d{3})/.exec(chunk.toString('latin1'))?.[1];
}

test('a body that is too large is refused with 413, announced or in chunks, before it is collected', async () => {
  using directory = temporaryDirectory();
  const controlSocket = join(directory.path, 'control.sock');
  const collector = buildHostCollector(
    hostCollectorConfigSchema.parse({
      dataDirectory: join(directory.path, 'data'),
      controlSocket,
      mqttPort: 0,
    }),
    { log: silentLog },
  );
  await collector.service.start();
  const head = 'POST /v1/check HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n';
  const chunk = `${mebibyte.toString(16)}\r\n${' '.repeat(mebibyte)}\r\n`;
  const chunked = `${head}transfer-encoding: chunked\r\n\r\n`;
  try {
    const announced = `${head}content-length: ${5 * mebibyte}\r\n\r\n`;
    expect(await statusOf(controlSocket, announced)).toBe('413');
    expect(await statusOf(controlSocket, chunked + chunk.repeat(5))).toBe('413');
    const whole = `${chunked}${chunk}2\r\n{}\r\n0\r\n\r\n`;
    expect(await statusOf(controlSocket, whole)).toBe('422');
  } finally {
    await collector.service.stop();
  }
});
