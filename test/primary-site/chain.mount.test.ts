import { mkdirSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';

import { expect, test } from 'vitest';

import { CertificateAuthority, writeCertificates } from '../support/channel-fixture.ts';
import { eventually } from '../support/eventually.ts';
import { freePort } from '../support/external-broker.ts';
import { mountAgent, type MountedAgent } from '../support/mounted-agent.ts';
import { describeUnless, fuseObstacle } from '../support/requirements.ts';
import { SavingWriter } from '../support/saving-writer.ts';
import { StreamChain, type ChainPart } from '../support/stream-chain.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';

const timeout = { timeoutMs: 40_000 };
const writerCount = 4;
const savesBetweenCrashes = 120;

function descriptor(agent: MountedAgent): object {
  return {
    apiVersion: 'isobar/v1',
    kind: 'VirtualMachine',
    id: 'vm1',
    guest: { channel: `unix:${join(dirname(agent.mountPath), 'channel.sock')}` },
    monitoring: { specifiers: [{ id: 'kpi', dataPoints: 'kpi/**' }] },
  };
}

/** Numbers from 0 to 1 that are the same in every run. */
function seededRandom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

describeUnless(fuseObstacle(), 'agent, collector and reader as processes', () => {
  test('kill -9 of each, alone and in pairs, under load: the exact set of saves arrives once, in order', async () => {
    await using agent = await mountAgent({ synchronous: 'NORMAL' });
    const directory = join(dirname(agent.mountPath), 'chain');
    mkdirSync(directory);
    await using chain = new StreamChain(directory);
    await chain.start(descriptor(agent));
    const writers = Array.from(
      { length: writerCount },
      (_, index) =>
        new SavingWriter(join(agent.mountPath, 'unencrypted', `w${index}`), index * 1_000_000 + 1),
    );
    for (const writer of writers) writer.start();
    const random = seededRandom(20_261_121);
    const crash = (part: 'agent' | ChainPart): Promise<void> =>
      part === 'agent' ? agent.kill() : chain.crash(part);
    const rounds = [
      ['agent'],
      ['collector'],
      ['reader'],
      ['agent', 'collector'],
      ['collector', 'reader'],
      ['agent', 'reader'],
    ] as const;
    const saved = (): number =>
      writers.reduce((sum, { acknowledged }) => sum + acknowledged.length, 0);
    for (const parts of rounds) {
      const goal = saved() + savesBetweenCrashes + Math.floor(random() * savesBetweenCrashes);
      await eventually(() => saved() >= goal, timeout);
      await Promise.all(parts.map((part) => crash(part)));
    }
    const goal = saved() + savesBetweenCrashes;
    await eventually(() => saved() >= goal, timeout);
    for (const writer of writers) await writer.stop();

    for (const [index, writer] of writers.entries()) {
      const rows = agent.rows(`w${index}`).map(({ column1 }) => Number(column1));
      const kept = new Set(rows);
      expect(writer.acknowledged.filter((value) => !kept.has(value))).toEqual([]);
      const arrived = (): number[] =>
        chain
          .values()
          .map(Number)
          .filter((value) => Math.floor(value / 1_000_000) === index);
      await eventually(() => arrived().length >= rows.length, timeout);
      expect(arrived()).toEqual(rows);
    }
    await eventually(async () => (await chain.vms())[0]?.state === 'running', timeout);
    const [vm] = await chain.vms();
    expect(vm?.epochs.map(({ missingFrames, lostFrames }) => missingFrames + lostFrames)).toEqual([
      0,
    ]);
  });

  test('TCP with mutual TLS carries saves; a host of another authority is refused, and the log says so', async () => {
    using certificates = temporaryDirectory();
    const authority = new CertificateAuthority('the guest authority');
    const guestFiles = join(certificates.path, 'guest');
    writeCertificates(guestFiles, authority);
    writeCertificates(join(certificates.path, 'host'), authority);
    writeCertificates(
      join(certificates.path, 'stranger'),
      new CertificateAuthority('another authority'),
    );
    const port = await freePort();
    await using agent = await mountAgent({
      config: { channel: { address: `tcp:127.0.0.1:${port}`, tlsDirectory: guestFiles } },
    });
    await writeFile(join(agent.mountPath, 'unencrypted', 'users'), '42');
    const startAs = async (host: string): Promise<StreamChain> => {
      const directory = join(certificates.path, `${host}-chain`);
      mkdirSync(directory);
      const chain = new StreamChain(directory);
      const tlsDirectory = join(certificates.path, host);
      const guest = { channel: `tcp:127.0.0.1:${port}`, tlsDirectory };
      await chain.start({ ...descriptor(agent), guest });
      return chain;
    };
    await using stranger = await startAs('stranger');
    const said = (): string => stranger.log.join('');
    await eventually(() => said().includes('guest-channel-unreachable'), timeout);
    expect(said()).toMatch(/cannot reach the guest.*certificate/);
    expect(stranger.values()).toEqual([]);
    await using host = await startAs('host');
    await eventually(() => host.values().includes(42), timeout);
    expect(host.values()).toEqual([42]);
  });
});
