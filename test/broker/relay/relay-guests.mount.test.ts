import { cpSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { expect, test } from 'vitest';

import { ChainLoad, chainDescriptor, nothingWrong } from '../../support/chain-load.ts';
import { eventually } from '../../support/eventually.ts';
import { mountAgent, type MountedAgent } from '../../support/mounted-agent.ts';
import { describeUnless, fuseObstacle } from '../../support/requirements.ts';
import { StreamChain } from '../../support/stream-chain.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

const timeout = { timeoutMs: 60_000 };
const savesBetweenFaults = 100;
/** Of the status stream, see {@link StreamChain}. */
const statusIntervalUs = 500_000;

const rowsOf = (agent: MountedAgent): number[] =>
  agent.rows('load').map(({ column1 }) => Number(column1));

const epochsOf = (chain: StreamChain, vm: string): number[][] =>
  chain.epochsOf(vm).map((values) => values.map(Number));

/** Waits until relay and reader both say this of the only VM, for several status intervals. */
async function seenAlongTheChain(chain: StreamChain, state: string): Promise<void> {
  const seen = async (): Promise<number | undefined> => {
    const [relayed] = (await chain.relayStatus('relay-1')).vms;
    const [read] = await chain.vms();
    return relayed?.state === state && read?.state === state
      ? (read.reportedAtUs ?? undefined)
      : undefined;
  };
  const firstUs = await eventually(seen, timeout);
  await eventually(async () => ((await seen()) ?? 0) > firstUs + 2 * statusIntervalUs, timeout);
}

describeUnless(
  fuseObstacle(),
  'guests of a chain that stand still or come back, as processes',
  () => {
    test('a suspended guest is suspended, a guest that says nothing silent, at relay and primary site; resumed it goes on: nothing lost, nothing twice, in order', async () => {
      await using agent = await mountAgent({ synchronous: 'NORMAL' });
      using directory = temporaryDirectory();
      await using chain = new StreamChain(directory.path, 1);
      const descriptor = chainDescriptor(agent);
      await chain.start({
        ...descriptor,
        // The agent stands for its VM: the host sees that the process is stopped.
        probe: { kind: 'process', pid: agent.pid },
      });
      const kpi = { id: 'kpi', dataPoints: 'kpi/**' };
      const cpu = {
        id: 'cpu',
        dataPoints: 'infra/cpu/*',
        format: 'mean',
        deliveryIntervalMs: 1_000,
      };
      const stopped = [
        ['suspended', [kpi, cpu]],
        // Without a specifier for infrastructure nothing is probed.
        ['silent', [kpi]],
      ] as const;
      await using load = new ChainLoad(agent);
      let revision = 1;
      for (const [state, specifiers] of stopped) {
        ({ revision } = await chain.setMonitoring('vm1', revision, { specifiers }));
        await load.more(savesBetweenFaults);
        await seenAlongTheChain(chain, 'running');
        const { pid } = agent;
        process.kill(pid, 'SIGSTOP');
        await seenAlongTheChain(chain, state);
        process.kill(pid, 'SIGCONT');
        await seenAlongTheChain(chain, 'running');
        await load.more(savesBetweenFaults);
        expect(agent.pid).toBe(pid);
      }
      const { rows, arrived, ...wrong } = await load.settle(chain);
      expect(arrived).toEqual(rows);
      expect(wrong).toEqual(nothingWrong);
    });

    test('a clone of a guest is a guest of its own; a store that was put back begins an epoch: each epoch has exactly its rows', async () => {
      await using agent = await mountAgent({ synchronous: 'NORMAL' });
      using directory = temporaryDirectory();
      await using chain = new StreamChain(directory.path, 1);
      await chain.start(chainDescriptor(agent));
      await using load = new ChainLoad(agent);
      await load.more(savesBetweenFaults);
      const copy = join(directory.path, 'copy');
      await load.writer.stop();
      await agent.restart(() => {
        cpSync(agent.dataPath, copy, { recursive: true });
      });
      const copied = rowsOf(agent);

      await using clone = await mountAgent({ synchronous: 'NORMAL', storeOf: copy });
      await chain.add(chainDescriptor(clone, 'vm2'));
      await using further = new ChainLoad(agent, 0, 1_000_001);
      await using cloned = new ChainLoad(clone, 0, 2_000_001);
      await Promise.all([further.more(savesBetweenFaults), cloned.more(savesBetweenFaults)]);
      await Promise.all([further.writer.stop(), cloned.writer.stop()]);
      const before = rowsOf(agent);
      await eventually(() => epochsOf(chain, 'vm1')[0]?.length === before.length, timeout);

      await agent.restart(() => {
        rmSync(agent.dataPath, { recursive: true });
        cpSync(copy, agent.dataPath, { recursive: true });
      });
      writeFileSync(join(agent.mountPath, 'unencrypted', 'load'), '3000001');
      const expected = { vm1: [before, [...copied, 3_000_001]], vm2: [rowsOf(clone)] };
      const arrived = (): typeof expected => ({
        vm1: epochsOf(chain, 'vm1'),
        vm2: epochsOf(chain, 'vm2'),
      });
      const count = (found: typeof expected): number => Object.values(found).flat(2).length;
      await eventually(() => count(arrived()) >= count(expected), timeout);
      expect(arrived()).toEqual(expected);
      expect(rowsOf(agent)).toEqual(expected.vm1[1]);
    });
  },
);
