import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { connect } from 'node:tls';

import { expect, test } from 'vitest';

import { contextOf } from '../../../broker/mqtt/neighbour-listener.ts';
import { relationTopics } from '../../../broker/mqtt/topics.ts';
import { initSite, introduceSites } from '../../../cli/demo/introduce-sites.ts';
import type { FileTlsIdentity } from '../../../common/identity/file-tls-identity.ts';
import { SystemClock } from '../../../common/runtime/clock.ts';
import { encodeFrameBatch } from '../../../common/wire/frame-batch.ts';
import { ChainLoad, chainDescriptor, nothingWrong } from '../../support/chain-load.ts';
import { eventually } from '../../support/eventually.ts';
import { Federation } from '../../support/federation.ts';
import { mountAgent } from '../../support/mounted-agent.ts';
import { Origin } from '../../support/origin.ts';
import { mqttPackets, writeAll } from '../../support/raw-mqtt.ts';
import { describeUnless, fuseObstacle } from '../../support/requirements.ts';
import { dataStream, rowRecord } from '../../support/sample-frames.ts';
import { StreamChain } from '../../support/stream-chain.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

const timeout = { timeoutMs: 40_000 };
const relation = 'hostile';
const mebibyte = 1_024 * 1_024;
const quota = {
  bytesPerSecond: 2 * mebibyte,
  burstBytes: 8 * mebibyte,
  vmBytesPerSecond: 100_000,
  vmBurstBytes: 8 * mebibyte,
  vmsMax: 50,
};
/** Large frames, so that a loaded machine too sends them faster than the quota; the last one is late by some seconds. */
const frameBytes = 200_000;
const floodFrames = Math.ceil((quota.vmBurstBytes + 6 * quota.vmBytesPerSecond) / frameBytes);
/** Stated generously: beside a flood a value is at the reader within this; without load it is some milliseconds. */
const latencyMsMax = 5_000;
const relayMemoryBytesMax = 400 * mebibyte;
/** Lines that the relay may write for all that is wrong. */
const logLinesMax = 300;

/** How long values take from the save to the reader, one after another, while `flood` goes on. */
async function latenciesDuring(
  flood: Promise<void>,
  load: ChainLoad,
  chain: StreamChain,
): Promise<number[]> {
  const latenciesMs: number[] = [];
  const state = { isFlooding: true };
  const ended = flood.finally(() => {
    state.isFlooding = false;
  });
  while (state.isFlooding || latenciesMs.length < 20) {
    await load.more(1);
    const beganMs = performance.now();
    const goal = load.writer.acknowledged.at(-1) ?? 0;
    await eventually(() => Number(chain.newestValue('vm1') ?? 0) >= goal, timeout);
    latenciesMs.push(performance.now() - beganMs);
  }
  await ended;
  return latenciesMs.toSorted((left, right) => left - right);
}

const at = (sorted: readonly number[], ratio: number): number =>
  sorted[Math.floor(ratio * (sorted.length - 1))] ?? Number.NaN;

/** Signed frames, as fast as they go. */
async function sendFrames(
  origin: Origin,
  vms: readonly string[],
  framesPerVm: number,
  bytes: number,
): Promise<void> {
  const filler = 'x'.repeat(bytes);
  for (const vm of vms) origin.openEpoch(dataStream(vm));
  for (let index = 0; index < framesPerVm; index += 1) {
    for (const vm of vms) origin.append(dataStream(vm), [rowRecord('users', 1, [filler])]);
    await nextTurn();
  }
}

/** Over a connection of its own certificate, messages that mean nothing, as fast as they are read. */
async function sendNonsense(identity: FileTlsIdentity, port: number): Promise<void> {
  const socket = connect({
    port,
    host: '127.0.0.1',
    ...contextOf(identity.material()),
    servername: '',
    checkServerIdentity: () => undefined,
  });
  socket.on('error', () => {});
  socket.resume();
  const topics = relationTopics(relation);
  const packets = function* (): Iterable<Uint8Array> {
    yield mqttPackets.connect('nonsense');
    for (let index = 0; index < 3_000; index += 1) {
      yield mqttPackets.publish(topics.live, randomBytes(2_000));
      yield mqttPackets.publish(topics.live, encodeFrameBatch([randomBytes(500)]));
      yield mqttPackets.publish(topics.downControl, Buffer.from('{"kind":"heads"'));
      yield mqttPackets.publish(topics.range('invented'), randomBytes(100));
    }
  };
  await writeAll(socket, packets());
  socket.destroy();
}

describeUnless(fuseObstacle(), 'a neighbour that floods a relay, as processes', () => {
  test('with frames of one VM, of many VMs, with nonsense: another VM’s values all arrive, in order and in time; memory and log are bounded', async () => {
    await using agent = await mountAgent({ synchronous: 'NORMAL' });
    using directory = temporaryDirectory();
    const federation = new Federation();
    await using _closing = { [Symbol.asyncDispose]: () => federation.close() };
    await using chain = new StreamChain(directory.path, 1, true, {
      relations: { 'relay-1': [{ relation, direction: 'upstream', quota }] },
    });
    await chain.start(chainDescriptor(agent));
    const hostileDirectory = join(directory.path, 'hostile-site');
    const clock = new SystemClock();
    await initSite(clock, hostileDirectory, { name: 'hostile', port: undefined });
    const sites = { producer: hostileDirectory, consumer: chain.siteDirectory('relay-1') };
    await introduceSites(clock, relation, sites);
    const identity = await federation.identity(hostileDirectory);
    const url = (await chain.relayStatus('relay-1')).listens ?? '';
    const client = await federation.client(identity, relation, url);
    const relations = { relations: [relation] };
    const path = join(directory.path, 'hostile.db');
    const hostile = new Origin(client, path, relations, () => true, identity);
    await hostile.producer.start();
    federation.onClose(() => hostile.close());
    await eventually(() => hostile.producer.hasSession(relation), timeout);

    await using load = new ChainLoad(agent, 5);
    const manyVms = Array.from({ length: 4 * quota.vmsMax }, (_, index) => `other-${index}`);
    const floods = {
      'frames of one VM': () => sendFrames(hostile, ['flood'], floodFrames, frameBytes),
      'frames of many VMs': () => sendFrames(hostile, manyVms, 3, 2_000),
      nonsense: () => sendNonsense(identity, Number(new URL(url).port)),
    };
    for (const [what, flood] of Object.entries(floods)) {
      const latenciesMs = await latenciesDuring(flood(), load, chain);
      const [p50, p99] = [at(latenciesMs, 0.5), at(latenciesMs, 0.99)];
      process.stderr.write(
        `beside ${what}: ${latenciesMs.length} values, p50 ${p50.toFixed(0)}, p99 ${p99.toFixed(0)} ms\n`,
      );
      expect(p99).toBeLessThan(latencyMsMax);
    }
    const { rows, arrived, ...wrong } = await load.settle(chain);
    expect(arrived).toEqual(rows);
    expect(wrong).toEqual(nothingWrong);

    // The flooder's own data is late, and no more of its VMs are known than it may name.
    const headOfFlood = async (): Promise<number> =>
      (await chain.relayStatus('relay-1')).vms.find(({ vm }) => vm === 'flood')?.head ?? 0;
    await eventually(async () => (await headOfFlood()) === floodFrames + 1, timeout);
    const status = await chain.relayStatus('relay-1');
    const delaysOf = (name: string): number | undefined =>
      status.neighbours.find((each) => each.relation === name)?.delays?.delayedFrames;
    expect(delaysOf(relation)).toBeGreaterThan(0);
    expect(delaysOf('relay-1')).toBe(0);
    expect(status.vms.filter(({ from }) => from === relation)).toHaveLength(quota.vmsMax);
    const peakBytes = chain.peakMemoryBytes('relay-1');
    process.stderr.write(`the relay's memory: ${Math.round(peakBytes / mebibyte)} MiB at most\n`);
    expect(peakBytes).toBeLessThan(relayMemoryBytesMax);
    const lines = chain
      .words('relay-1')
      .split('\n')
      .filter((line) => line.includes('"level"'));
    expect(lines.length).toBeLessThan(logLinesMax);
  });
});
