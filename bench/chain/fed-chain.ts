import { mkdirSync, mkdtempSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { startFleet, type Fleet, type FleetPlan } from '../fleet.ts';
import { BenchChain, type ChainOptions } from './bench-chain.ts';

/** A chain whose collector is fed by guests' stores and channels without mounts. */
export interface FedChain extends AsyncDisposable {
  readonly chain: BenchChain;
  readonly fleet: Fleet;
}

export async function startFedChain(
  directory: string,
  options: ChainOptions,
  plan: FleetPlan,
): Promise<FedChain> {
  mkdirSync(directory);
  // Paths of unix sockets are short (108 bytes), so not below the benchmark's own directory.
  const fleetPath = mkdtempSync(join(tmpdir(), 'isobar-fleet-'));
  const fleet = await startFleet(fleetPath, plan);
  const chain = new BenchChain(directory, options);
  const dispose = async (): Promise<void> => {
    await chain[Symbol.asyncDispose]();
    await fleet.stop();
    await rm(fleetPath, { recursive: true, force: true });
    await rm(directory, { recursive: true, force: true });
  };
  try {
    await chain.start();
    for (let guest = 0; guest < plan.guestCount; guest += 1) {
      await chain.addVm(`guest-${guest}`, `unix:${join(fleetPath, `${guest}.sock`)}`);
    }
  } catch (error) {
    await dispose();
    throw error;
  }
  return { chain, fleet, [Symbol.asyncDispose]: dispose };
}
