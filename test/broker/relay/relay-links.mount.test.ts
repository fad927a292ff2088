import { expect, test } from 'vitest';

import { ChainLoad, chainDescriptor, nothingWrong } from '../../support/chain-load.ts';
import { eventually } from '../../support/eventually.ts';
import { mountAgent, type MountedAgent } from '../../support/mounted-agent.ts';
import { describeUnless, fuseObstacle } from '../../support/requirements.ts';
import { StreamChain } from '../../support/stream-chain.ts';
import { perfectLink } from '../../support/tcp-proxy.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

const timeout = { timeoutMs: 60_000 };
const savesBetweenFaults = 150;
const hops = ['relay-1', 'reader'] as const;
const keepaliveSeconds = 2;
/** Stated: one and a half of the keepalive, then one backoff and one round; the rest is for a busy machine. */
const foundAndHealedMs = 1_500 * keepaliveSeconds + 6_000;

/** A relay between source and primary site, each hop on a way that can be made bad. */
async function startChain(agent: MountedAgent, directory: string): Promise<StreamChain> {
  const chain = new StreamChain(directory, 1, false, {
    proxied: hops,
    configs: { 'relay-1': { keepaliveSeconds }, reader: { keepaliveSeconds } },
  });
  await chain.start(chainDescriptor(agent));
  return chain;
}

const newestArrived = (chain: StreamChain): number => Number(chain.values().at(-1) ?? 0);

/** Prints how long it takes until the reader has what was acknowledged before now. */
async function printCatchUp(what: string, load: ChainLoad, chain: StreamChain): Promise<void> {
  const goal = load.writer.acknowledged.length;
  const beganMs = performance.now();
  await eventually(() => chain.values().length >= goal, timeout);
  const elapsedMs = Math.round(performance.now() - beganMs);
  process.stderr.write(`catch-up after ${what}: ${goal} values, ${elapsedMs} ms\n`);
}

describeUnless(fuseObstacle(), 'a chain on bad links, as processes', () => {
  test('each hop cut and restored under load, then both at once: nothing lost, nothing twice, in order', async () => {
    await using agent = await mountAgent({ synchronous: 'NORMAL' });
    using directory = temporaryDirectory();
    await using chain = await startChain(agent, directory.path);
    await using load = new ChainLoad(agent);
    for (const parts of [['relay-1'], ['reader'], hops] as const) {
      await load.more(savesBetweenFaults);
      await Promise.all(parts.map((part) => chain.hop(part).cut()));
      await load.more(savesBetweenFaults);
      await Promise.all(parts.map((part) => chain.hop(part).restore()));
      await printCatchUp(`a cut of ${parts.join(', ')}`, load, chain);
    }
    const { rows, arrived, ...wrong } = await load.settle(chain);
    expect(arrived).toEqual(rows);
    expect(wrong).toEqual(nothingWrong);
  });

  test('a half-open connection is noticed within one and a half of keepaliveSeconds, and healed', async () => {
    await using agent = await mountAgent({ synchronous: 'NORMAL' });
    using directory = temporaryDirectory();
    await using chain = await startChain(agent, directory.path);
    await using load = new ChainLoad(agent, 5);
    for (const part of hops) {
      await load.more(savesBetweenFaults);
      await eventually(() => newestArrived(chain) > 0, timeout);
      chain.hop(part).swallow();
      // A new connection would work: what is measured is how long the old one is believed in.
      chain.hop(part).mend();
      await load.more(1);
      const goal = load.writer.acknowledged.at(-1) ?? 0;
      await eventually(() => newestArrived(chain) >= goal, { timeoutMs: foundAndHealedMs });
    }
    const { rows, arrived, ...wrong } = await load.settle(chain);
    expect(arrived).toEqual(rows);
    expect(wrong).toEqual(nothingWrong);
  });

  test('250 ms there and back, 55 ms with a loss of 5%: nothing lost, nothing twice, in order, also after a cut', async () => {
    await using agent = await mountAgent({ synchronous: 'NORMAL' });
    using directory = temporaryDirectory();
    await using chain = await startChain(agent, directory.path);
    chain.hop('relay-1').quality = { ...perfectLink, oneWayMs: 125 };
    chain.hop('reader').quality = { ...perfectLink, oneWayMs: 27.5, lossRatio: 0.05 };
    await using load = new ChainLoad(agent);
    for (const part of hops) {
      await load.more(2 * savesBetweenFaults);
      await chain.hop(part).cut();
      await load.more(2 * savesBetweenFaults);
      await chain.hop(part).restore();
      await printCatchUp(`a cut of ${part} on slow links`, load, chain);
    }
    const { rows, arrived, ...wrong } = await load.settle(chain);
    expect(arrived).toEqual(rows);
    expect(wrong).toEqual(nothingWrong);
  });

  test('64 kbit/s: fresh values arrive during the catch-up, which ends with nothing lost, nothing twice, in order', async () => {
    await using agent = await mountAgent({ synchronous: 'NORMAL' });
    using directory = temporaryDirectory();
    await using chain = await startChain(agent, directory.path);
    await eventually(async () => (await chain.vms()).length === 1, timeout);
    await chain.hop('reader').cut();
    const backlog = 800;
    await using burst = new ChainLoad(agent);
    await burst.more(backlog);
    await burst.writer.stop();
    const first = burst.writer.acknowledged.length + 1;
    chain.hop('reader').quality = { ...perfectLink, bytesPerSecond: 8_000, oneWayMs: 27.5 };
    await using load = new ChainLoad(agent, 200, first);
    await chain.hop('reader').restore();
    await eventually(() => newestArrived(chain) >= first, timeout);
    const lagsMs: number[] = [];
    while (chain.values().length < backlog) {
      await load.more(1);
      const newest = load.writer.acknowledged.at(-1) ?? 0;
      const beganMs = performance.now();
      await eventually(() => newestArrived(chain) >= newest, { timeoutMs: freshWithinMs });
      lagsMs.push(Math.round(performance.now() - beganMs));
    }
    process.stderr.write(
      `64 kbit/s: fresh values in the catch-up within ${lagsMs.join(', ')} ms\n`,
    );
    expect(lagsMs.length).toBeGreaterThan(1);
    const { rows, arrived, ...wrong } = await load.settle(chain);
    expect(arrived).toEqual(rows);
    expect(wrong).toEqual(nothingWrong);
  });
});

/** The part of the back-fill that is under way goes before a fresh value; the rest is for a busy machine. */
const freshWithinMs = 5_000;
