import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

import { expect, test } from 'vitest';

import { compiledEntry } from '../../../common/runtime/package-root.ts';
import { ChainLoad, chainDescriptor, nothingWrong } from '../../support/chain-load.ts';
import { mountAgent, type MountedAgent } from '../../support/mounted-agent.ts';
import { describeUnless, fuseObstacle } from '../../support/requirements.ts';
import {
  readerCrashPoints,
  relayCrashPoints,
  type SiteCrashPoint,
} from '../../support/site-crash-points.ts';
import { StreamChain } from '../../support/stream-chain.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

type Round = Partial<Record<'relay-1' | 'reader', SiteCrashPoint>>;

const rounds: readonly (readonly [string, readonly Round[]])[] = [
  ['the relay, each', relayCrashPoints.map((point) => ({ 'relay-1': point }))],
  ['the primary site, each', readerCrashPoints.map((point) => ({ reader: point }))],
  [
    'relay and primary site at once',
    [
      { 'relay-1': 'received', reader: 'acknowledged' },
      { 'relay-1': 'committed', reader: 'frames-written' },
      { 'relay-1': 'acknowledged', reader: 'received' },
    ],
  ],
];

/** A chain whose sites end at the crash point that a file of theirs names, whatever they are doing then. */
class CrashingChain extends StreamChain {
  readonly #flags: Readonly<Record<keyof Round, string>>;

  constructor(directory: string) {
    const flags = { 'relay-1': join(directory, 'relay-at'), reader: join(directory, 'reader-at') };
    const fixture = compiledEntry('test/support/site-crash-fixture.ts');
    const environment = (flag: string): Record<string, string> => ({
      NODE_OPTIONS: `--import ${pathToFileURL(fixture).href}`,
      CRASH_AT: flag,
    });
    super(directory, 1, false, {
      environments: {
        'relay-1': environment(flags['relay-1']),
        reader: environment(flags.reader),
      },
    });
    this.#flags = flags;
  }

  /** Resolves when each has ended there and was started again. */
  async crashAt(round: Round): Promise<void> {
    const crashes = (['relay-1', 'reader'] as const).flatMap((part) => {
      const point = round[part];
      return point === undefined ? [] : [this.#crashAt(part, point)];
    });
    await Promise.all(crashes);
  }

  async #crashAt(part: keyof Round, point: SiteCrashPoint): Promise<void> {
    const ended = this.ended(part);
    writeFileSync(this.#flags[part], point);
    if ((await ended) !== 'SIGKILL' || existsSync(this.#flags[part])) {
      throw new Error(`${part} ended otherwise than at ${point}`);
    }
    this.run(part);
  }
}

async function startChain(agent: MountedAgent, directory: string): Promise<CrashingChain> {
  const chain = new CrashingChain(directory);
  await chain.start(chainDescriptor(agent));
  return chain;
}

describeUnless(fuseObstacle(), 'crash points of the sites of a chain, as processes', () => {
  test.each(rounds)(
    'kill -9 at crash points of %s, under load: nothing lost, nothing twice, in order',
    async (_who, round) => {
      await using agent = await mountAgent({ synchronous: 'NORMAL' });
      using directory = temporaryDirectory();
      await using chain = await startChain(agent, directory.path);
      await using load = new ChainLoad(agent, 5);
      for (const points of round) {
        await chain.crashAt(points);
      }
      const { rows, arrived, ...wrong } = await load.settle(chain);
      expect(arrived).toEqual(rows);
      expect(wrong).toEqual(nothingWrong);
    },
  );
});
