import { readFileSync } from 'node:fs';

import { systemErrorCode } from '../../common/runtime/operating-error.ts';

/** Where the kernel shows itself; other directories for recorded trees. */
export interface KernelRoots {
  readonly proc: string;
  readonly cgroup: string;
}

export const kernelRoots: KernelRoots = { proc: '/proc', cgroup: '/sys/fs/cgroup' };

/** Clock ticks per second in /proc; 100 on every Linux architecture that Node supports (USER_HZ). */
const ticksPerSecond = 100;

export function ticksToUs(ticks: number): number {
  return ticks * (1_000_000 / ticksPerSecond);
}

const absentCodes: ReadonlySet<string | undefined> = new Set([
  'ENOENT',
  'ENOTDIR',
  'ESRCH',
  'EACCES',
  'EPERM',
  'ENODEV',
]);

/** A kernel file's text; null when it is not there or not for us to read. */
export function readKernelFile(path: string): string | null {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (absentCodes.has(systemErrorCode(error))) return null;
    throw error;
  }
}

/** `name: value` or `name value` lines with the value's first number. */
export function numbersByName(text: string): ReadonlyMap<string, number> {
  const numbers = new Map<string, number>();
  for (const line of text.split('\n')) {
    const match = /^([^\s:]+):?\s+(\d+)/.exec(line);
    if (match !== null) numbers.set(match[1] ?? '', Number(match[2]));
  }
  return numbers;
}

/** Memory of the machine in bytes, from /proc/meminfo. */
export function readMemory(
  procRoot: string,
): { readonly totalBytes: number; readonly availableBytes: number } | null {
  const numbers = numbersByName(readKernelFile(`${procRoot}/meminfo`) ?? '');
  const totalKib = numbers.get('MemTotal');
  const availableKib = numbers.get('MemAvailable');
  if (totalKib === undefined || availableKib === undefined) return null;
  return { totalBytes: totalKib * 1_024, availableBytes: availableKib * 1_024 };
}

/** How many CPUs /proc/stat lists; at least one. */
export function countCpus(procStat: string): number {
  return Math.max(1, procStat.match(/^cpu\d+ /gm)?.length ?? 1);
}

export interface InterfaceCounters {
  readonly name: string;
  readonly receivedBytes: number;
  readonly sentBytes: number;
}

/** The interfaces of a /proc/net/dev text, without loopback. */
export function parseInterfaces(text: string): readonly InterfaceCounters[] {
  return text.split('\n').flatMap((line) => {
    const match = /^\s*([^:\s]+):\s*(.*)$/.exec(line);
    if (match === null || match[1] === undefined || match[1] === 'lo') return [];
    const fields = (match[2] ?? '').trim().split(/\s+/).map(Number);
    const [receivedBytes, sentBytes] = [fields[0], fields[8]];
    if (receivedBytes === undefined || sentBytes === undefined) return [];
    return [{ name: match[1], receivedBytes, sentBytes }];
  });
}
