import { connect, createServer, type Socket } from 'node:net';

import { MqttClient, mqttClientDefaults } from '../../broker/mqtt/mqtt-client.ts';
import { SystemClock } from '../../common/runtime/clock.ts';
import { silentLog } from '../../common/runtime/log.ts';
import { SystemRandom } from '../../common/runtime/random.ts';
import { eventually } from '../support/eventually.ts';

const timeoutMs = 10_000;

/** What our own client says to the broker at `port` when it subscribes to `filter` and publishes to `topic`, recorded on the way. */
export async function recordedPackets(
  port: number,
  filter: string,
  topic: string,
): Promise<readonly Buffer[]> {
  const chunks: Buffer[] = [];
  const sockets = new Set<Socket>();
  const recorder = createServer((client) => {
    const broker = connect(port, '127.0.0.1');
    for (const socket of [client, broker]) {
      sockets.add(socket);
      socket.on('error', () => {});
    }
    client.on('data', (chunk: Buffer) => {
      chunks.push(chunk);
    });
    client.pipe(broker).pipe(client);
  });
  await new Promise<void>((resolve) => {
    recorder.listen(0, '127.0.0.1', resolve);
  });
  const address = recorder.address();
  const recorderPort = typeof address === 'object' && address !== null ? address.port : 0;
  const client = new MqttClient(
    { clock: new SystemClock(), random: new SystemRandom(), log: silentLog },
    { ...mqttClientDefaults, url: `mqtt://127.0.0.1:${recorderPort}` },
  );
  await client.start();
  await eventually(() => client.isConnected, { timeoutMs });
  const cancel = await client.subscribe(filter, 1, () => {});
  await client.publish(topic, Buffer.from('payload'), 0);
  await client.publish(topic, Buffer.from('payload'), 1);
  cancel();
  await client.stop();
  for (const socket of sockets) socket.destroy();
  await new Promise((resolve) => {
    recorder.close(resolve);
  });
  return chunks;
}
