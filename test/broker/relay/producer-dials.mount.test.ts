import { expect, test } from 'vitest';

import { ChainLoad, chainDescriptor, nothingWrong } from '../../support/chain-load.ts';
import { eventually } from '../../support/eventually.ts';
import { mountAgent, type MountedAgent } from '../../support/mounted-agent.ts';
import { describeUnless, fuseObstacle } from '../../support/requirements.ts';
import { StreamChain, type ChainPart } from '../../support/stream-chain.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

const timeout = { timeoutMs: 60_000 };
const savesBetweenFaults = 100;
const keepaliveSeconds = 2;
/** Stated: one and a half of the keepalive, at least three seconds; the rest is for a busy machine. */
const foundMs = Math.max(1_500 * keepaliveSeconds, 3_000) + 6_000;

/** A source behind a firewall: it dials the relay, and the relay dials whoever of `producerDials` comes after it. */
async function startChain(
  agent: MountedAgent,
  directory: string,
  producerDials: readonly ChainPart[],
): Promise<StreamChain> {
  const keepalive = { keepaliveSeconds };
  const chain = new StreamChain(directory, 1, true, {
    producerDials,
    proxied: ['relay-1', 'reader'],
    configs: { collector: keepalive, 'relay-1': keepalive, reader: keepalive },
  });
  await chain.start(chainDescriptor(agent));
  return chain;
}

/** Both ends of the hop to `part`, as each sees the other. */
async function ends(chain: StreamChain, part: 'relay-1' | 'reader'): Promise<unknown[]> {
  const sender = part === 'relay-1' ? 'collector' : 'relay-1';
  const seen = await Promise.all([chain.neighbours(sender), chain.neighbours(part)]);
  return seen.map((neighbours) => neighbours[part]);
}

describeUnless(fuseObstacle(), 'a source behind a firewall, as processes', () => {
  test('listens nowhere and dials its relay; kill -9 of either side, a cut: nothing lost, nothing twice, in order', async () => {
    await using agent = await mountAgent({ synchronous: 'NORMAL' });
    using directory = temporaryDirectory();
    await using chain = await startChain(agent, directory.path, ['relay-1', 'reader']);
    await using load = new ChainLoad(agent);
    await load.more(savesBetweenFaults);
    expect(chain.listeningPorts('collector')).toEqual([]);
    expect(chain.listeningPorts('relay-1').length).toBe(1);
    expect(chain.listeningPorts('reader').length).toBe(1);
    for (const parts of [
      ['collector'],
      ['relay-1'],
      ['reader'],
      ['collector', 'reader'],
    ] as const) {
      await Promise.all(parts.map((part) => chain.crash(part)));
      await load.more(savesBetweenFaults);
    }
    for (const part of ['relay-1', 'reader'] as const) {
      await chain.hop(part).cut();
      await load.more(savesBetweenFaults);
      await chain.hop(part).restore();
    }
    const { rows, arrived, ...wrong } = await load.settle(chain);
    expect(arrived).toEqual(rows);
    expect(wrong).toEqual(nothingWrong);
    expect(await chain.integrity()).toEqual([]);
    expect(chain.unprotectedFrames()).toBe(0);
  });

  test.each([
    ['reader that listens', ['relay-1', 'reader']],
    ['reader that dials', ['relay-1']],
  ] as const)(
    'a half-open connection is found at both ends within one and a half of keepaliveSeconds: %s',
    async (_name, producerDials) => {
      await using agent = await mountAgent({ synchronous: 'NORMAL' });
      using directory = temporaryDirectory();
      await using chain = await startChain(agent, directory.path, producerDials);
      await using load = new ChainLoad(agent, 5);
      for (const part of ['relay-1', 'reader'] as const) {
        await eventually(async () => (await ends(chain, part)).every(Boolean), timeout);
        chain.hop(part).swallow();
        const beganMs = performance.now();
        await eventually(async () => !(await ends(chain, part)).some(Boolean), {
          timeoutMs: foundMs,
        });
        const elapsedMs = Math.round(performance.now() - beganMs);
        process.stderr.write(`half-open hop to ${part}, found at both ends: ${elapsedMs} ms\n`);
        chain.hop(part).mend();
        await load.more(1);
      }
      await eventually(async () => (await ends(chain, 'relay-1')).every(Boolean), timeout);
      const { rows, arrived, ...wrong } = await load.settle(chain);
      expect(arrived).toEqual(rows);
      expect(wrong).toEqual(nothingWrong);
    },
  );
});
