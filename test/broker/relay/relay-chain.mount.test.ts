import { mkdirSync, rmSync } from 'node:fs';

import { expect, test } from 'vitest';

import { ChainLoad, chainDescriptor, nothingWrong } from '../../support/chain-load.ts';
import { eventually } from '../../support/eventually.ts';
import { mountAgent, type MountedAgent } from '../../support/mounted-agent.ts';
import { describeUnless, fuseObstacle } from '../../support/requirements.ts';
import { StreamChain, type ChainPart } from '../../support/stream-chain.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

const timeout = { timeoutMs: 40_000 };
const savesBetweenFaults = 150;

async function startChain(
  agent: MountedAgent,
  directory: string,
  isSecure = false,
): Promise<StreamChain> {
  const chain = new StreamChain(directory, 2, isSecure);
  await chain.start(chainDescriptor(agent));
  return chain;
}

describeUnless(fuseObstacle(), 'a chain of two intermediaries, as processes', () => {
  test('kill -9 of agent, collector, sites, alone and in pairs, under load: nothing lost, nothing twice, in order', async () => {
    await using agent = await mountAgent({ synchronous: 'NORMAL' });
    using directory = temporaryDirectory();
    await using chain = await startChain(agent, directory.path);
    await using load = new ChainLoad(agent);
    const crash = (part: 'agent' | ChainPart): Promise<void> =>
      part === 'agent' ? agent.kill() : chain.crash(part);
    const rounds = [
      ['relay-1'],
      ['relay-2'],
      ['relay-1', 'relay-2'],
      ['collector', 'relay-1'],
      ['relay-2', 'reader'],
      ['agent', 'relay-2'],
    ] as const;
    for (const parts of rounds) {
      await load.more(savesBetweenFaults);
      await Promise.all(parts.map((part) => crash(part)));
    }
    await load.more(savesBetweenFaults);
    const { rows, arrived, ...wrong } = await load.settle(chain);
    expect(arrived).toEqual(rows);
    expect(wrong).toEqual(nothingWrong);
  });

  test('hop 2 away, hop 1 killed: what only passed through memory is fetched again', async () => {
    await using agent = await mountAgent({ synchronous: 'NORMAL' });
    using directory = temporaryDirectory();
    await using chain = await startChain(agent, directory.path);
    await using load = new ChainLoad(agent);
    await load.more(savesBetweenFaults);
    await chain.kill('relay-2');
    await load.more(savesBetweenFaults);
    await chain.crash('relay-1');
    await load.more(savesBetweenFaults);
    chain.run('relay-2');
    await load.more(savesBetweenFaults);
    const { rows, arrived, ...wrong } = await load.settle(chain);
    expect(arrived).toEqual(rows);
    expect(wrong).toEqual(nothingWrong);
  });

  test('sites of their own, signed and sealed: kill -9 in pairs, nothing lost, nothing twice, in order, nothing unverified', async () => {
    await using agent = await mountAgent({ synchronous: 'NORMAL' });
    using directory = temporaryDirectory();
    await using chain = await startChain(agent, directory.path, true);
    await using load = new ChainLoad(agent);
    const rounds = [
      ['relay-1', 'relay-2'],
      ['collector', 'relay-2'],
      ['relay-1', 'reader'],
    ] as const;
    for (const parts of rounds) {
      await load.more(savesBetweenFaults);
      await Promise.all(parts.map((part) => chain.crash(part)));
    }
    await load.more(savesBetweenFaults);
    const { rows, arrived, ...wrong } = await load.settle(chain);
    expect(arrived).toEqual(rows);
    expect(wrong).toEqual(nothingWrong);
    expect(await chain.integrity()).toEqual([]);
    expect(chain.unprotectedFrames()).toBe(0);
  });

  test('the loss of one relay’s whole disk heals from upstream', async () => {
    await using agent = await mountAgent({ synchronous: 'NORMAL' });
    using directory = temporaryDirectory();
    await using chain = await startChain(agent, directory.path);
    await using load = new ChainLoad(agent);
    await load.more(savesBetweenFaults);
    await chain.kill('relay-1');
    rmSync(chain.dataDirectory('relay-1'), { recursive: true });
    mkdirSync(chain.dataDirectory('relay-1'));
    await load.more(savesBetweenFaults);
    chain.run('relay-1');
    await load.more(savesBetweenFaults);
    const { rows, arrived, ...wrong } = await load.settle(chain);
    expect(arrived).toEqual(rows);
    expect(wrong).toEqual(nothingWrong);
  });

  test('every site on a chain knows that a VM runs, or is silent, though it may not open the data', async () => {
    await using agent = await mountAgent({ synchronous: 'NORMAL' });
    using directory = temporaryDirectory();
    await using chain = await startChain(agent, directory.path);
    const states = async (): Promise<(string | undefined)[]> => {
      const sites = await Promise.all([chain.relayStatus('relay-1'), chain.relayStatus('relay-2')]);
      return sites.map(({ vms }) => vms[0]?.state);
    };
    await eventually(async () => (await states()).every((state) => state === 'running'), timeout);
    const [vm] = (await chain.relayStatus('relay-2')).vms;
    expect(vm).toMatchObject({ vm: 'vm1', from: 'relay-2' });
    await agent[Symbol.asyncDispose]();
    await eventually(async () => (await states()).every((state) => state === 'silent'), timeout);
  });
});
