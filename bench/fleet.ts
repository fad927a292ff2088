import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';

import { compiledEntry } from '../common/runtime/package-root.ts';
import { usageOf } from './machine.ts';

/** Guest stores in one process of the fleet. */
const guestsPerProcess = 250;

export interface FleetPlan {
  readonly guestCount: number;
  /** Of each guest. */
  readonly savesPerSecond: number;
  /** Fields of each save; 1: its number alone. */
  readonly columnCount?: number;
  /** How often saves that are due are made: all of a guest's as one batch. */
  readonly intervalMs?: number;
}

/** Guests with stores and channels but without mounts (bench/guest-fleet.ts). */
export interface Fleet {
  /** A number: saves a second of each guest from now on. */
  tell(message: 'save' | 'stop' | number): void;
  /** Saves of all guests, once they were told to stop. */
  savedCount(): Promise<number>;
  /** CPU time that the guests' stores and channels took so far: the capture, without a mount. */
  cpuUs(): number;
  stop(): Promise<void>;
}

/** Starts bench/guest-fleet.ts as often as needed and resolves when every guest's channel can be dialled. */
export async function startFleet(fleetPath: string, plan: FleetPlan): Promise<Fleet> {
  const { guestCount, savesPerSecond, columnCount = 1, intervalMs = 10 } = plan;
  const members: ChildProcess[] = [];
  for (let first = 0; first < guestCount; first += guestsPerProcess) {
    const count = Math.min(guestsPerProcess, guestCount - first);
    const member = spawn(
      process.execPath,
      [
        compiledEntry('bench/guest-fleet.ts'),
        fleetPath,
        String(first),
        String(count),
        String(savesPerSecond),
        String(columnCount),
        String(intervalMs),
      ],
      { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] },
    );
    members.push(member);
    await once(member, 'message');
  }
  return {
    tell: (message) => {
      for (const member of members) member.send(message);
    },
    savedCount: async () => {
      const counts = await Promise.all(members.map(async (member) => once(member, 'message')));
      return counts.reduce((total, [count]) => total + Number(count), 0);
    },
    cpuUs: () => members.reduce((total, { pid = 0 }) => total + usageOf(pid).cpuUs, 0),
    stop: async () => {
      for (const member of members) {
        if (member.exitCode !== null || member.signalCode !== null) continue;
        member.kill('SIGKILL');
        await once(member, 'exit');
      }
    },
  };
}
