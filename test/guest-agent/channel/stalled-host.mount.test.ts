import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';

import { expect, test } from 'vitest';

import { encodeFrame } from '../../../common/channel/frame-codec.ts';
import { MessageCodec } from '../../../common/channel/message-codec.ts';
import type { ChannelMessage } from '../../../common/channel/message.ts';
import { ControlClient } from '../../../common/control/control-client.ts';
import { guestStatusSchema } from '../../../common/control/guest-answer.ts';
import { startHost } from '../../support/channel-fixture.ts';
import { eventually } from '../../support/eventually.ts';
import { type MountedAgent, mountAgent } from '../../support/mounted-agent.ts';
import { RecordingGuestListener } from '../../support/recording-guest-listener.ts';
import { describeUnless, fuseObstacle } from '../../support/requirements.ts';

const timeout = { timeoutMs: 20_000 };

/** A host that says hello, asks for all rows as often as it is told to, sends pings, and never reads what comes. */
class StalledHost implements Disposable {
  readonly #socket: Socket;
  readonly #codec = new MessageCodec();
  readonly #pings: NodeJS.Timeout;

  constructor(socket: Socket) {
    this.#socket = socket;
    // Nothing reads it, so the kernel's buffers and then the agent's fill up.
    socket.pause();
    socket.on('error', () => {});
    this.#pings = setInterval(() => {
      this.#send({ kind: 'ping' });
    }, 500);
  }

  static async connect(agent: MountedAgent): Promise<StalledHost> {
    const socket = connect(join(agent.dataPath, '..', 'channel.sock'));
    await once(socket, 'connect');
    const host = new StalledHost(socket);
    host.#send({ kind: 'hello', versions: { oldest: 1, newest: 1 }, hostInstance: 'stalled' });
    host.#send({
      kind: 'register',
      notify: true,
      registrations: [{ area: 'unencrypted', tables: '**' }],
    });
    return host;
  }

  fetch(generation: string, count: number): void {
    for (let requestId = 1; requestId <= count; requestId += 1) {
      this.#send({
        kind: 'fetch',
        requestId,
        area: 'unencrypted',
        cursor: { generation, rowId: 0 },
        rowsMax: 4_096,
        bytesMax: 1_048_576,
      });
    }
  }

  [Symbol.dispose](): void {
    clearInterval(this.#pings);
    this.#socket.destroy();
  }

  #send(message: ChannelMessage): void {
    this.#socket.write(encodeFrame(7, this.#codec.encode(message)));
  }
}

async function statusOf(agent: MountedAgent) {
  const client = new ControlClient({
    socketPath: join(agent.dataPath, '..', 'control.sock'),
    peer: 'the guest agent',
    startCommand: '',
  });
  return client.get('/v1/status', guestStatusSchema);
}

describeUnless(fuseObstacle(), 'Guest channel, through a mount', () => {
  test('"a slow or absent host never blocks a close": nor does one that says hello, asks and then stops reading; the next host gets every row once', async () => {
    await using agent = await mountAgent({ synchronous: 'OFF' });
    const kpi = join(agent.mountPath, 'unencrypted', 'kpi');
    const wide = 'x'.repeat(40_000);
    const saves = Array.from({ length: 120 }, (_, index) => `${index},${wide}\n`);
    const [absent, stalled, after] = [saves.slice(0, 40), saves.slice(40, 80), saves.slice(80)];

    for (const content of absent) writeFileSync(kpi, content);
    const { databases } = await statusOf(agent);
    const generation = databases.find(({ area }) => area === 'unencrypted')?.generation ?? '';
    expect(databases).toContainEqual(expect.objectContaining({ unacknowledgedRows: 40 }));

    using host = await StalledHost.connect(agent);
    await eventually(async () => (await statusOf(agent))['hasHost'] === true, timeout);
    // About a megabyte each: more than the agent keeps for a host that does not read.
    host.fetch(generation, 100);
    for (const content of stalled) writeFileSync(kpi, content);
    // It is never silent, so only that bound ends it; saves go on as before.
    await eventually(async () => (await statusOf(agent))['hasHost'] === false, timeout);
    for (const content of after) writeFileSync(kpi, content);
    expect(agent.rows('kpi').map((row) => row['column1'])).toEqual(saves.map((_, index) => index));

    const listener = new RecordingGuestListener();
    const address = `unix:${join(agent.dataPath, '..', 'channel.sock')}`;
    const client = await startHost(listener, { address });
    await eventually(() => listener.given.length >= saves.length, timeout);
    expect(listener.given.map(({ values }) => values[0])).toEqual(saves.map((_, index) => index));
    await client.stop();
  });
});
