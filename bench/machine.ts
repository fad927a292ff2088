import { closeSync, fdatasyncSync, openSync, readFileSync, unlinkSync, writeSync } from 'node:fs';
import { availableParallelism, cpus, loadavg, release, totalmem } from 'node:os';
import { join } from 'node:path';

import { median, percentile } from './statistics.ts';

export interface Machine {
  readonly cores: number;
  readonly processor: string;
  readonly memoryBytes: number;
  readonly kernel: string;
  readonly node: string;
  /** Runnable processes over the last minute when the run began: other work on the machine. */
  readonly loadAverage: number;
}

/** What the figures of this run were measured on. */
export function describeMachine(): Machine {
  return {
    cores: availableParallelism(),
    processor: cpus()[0]?.model.trim() ?? 'unknown',
    memoryBytes: totalmem(),
    kernel: release(),
    node: process.version,
    loadAverage: loadavg()[0] ?? Number.NaN,
  };
}

export interface FsyncTime {
  readonly p50Us: number;
  readonly p99Us: number;
}

const syncCount = 200;
const pageBytes = 4_096;

/** How long the disk under `directory` takes to make one appended page durable: the floor of a save at FULL. */
export function measureFsync(directory: string): FsyncTime {
  const path = join(directory, 'fsync-probe');
  const file = openSync(path, 'w');
  const page = Buffer.alloc(pageBytes, 1);
  const timesUs: number[] = [];
  try {
    for (let index = 0; index < syncCount; index += 1) {
      writeSync(file, page);
      const startMs = performance.now();
      fdatasyncSync(file);
      timesUs.push((performance.now() - startMs) * 1_000);
    }
  } finally {
    closeSync(file);
    unlinkSync(path);
  }
  return { p50Us: median(timesUs), p99Us: percentile(timesUs, 0.99) };
}

/** CPU time and memory of a process and all that it started. */
export interface ProcessUsage {
  readonly cpuUs: number;
  readonly residentBytes: number;
}

/** Linux reports CPU time to user space in this unit on every architecture (proc(5), USER_HZ). */
const clockTickUs = 10_000;

/** Reads /proc; a process that ends meanwhile counts as nothing. */
export function usageOf(pid: number): ProcessUsage {
  let cpuUs = 0;
  let residentBytes = 0;
  for (const member of processTree(pid)) {
    const stat = readProc(member, 'stat');
    // The second field is the command in parentheses and may hold blanks: count from behind it.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    cpuUs += (Number(fields[11] ?? 0) + Number(fields[12] ?? 0)) * clockTickUs;
    const resident = /^VmRSS:\s+(\d+) kB$/m.exec(readProc(member, 'status'))?.[1];
    residentBytes += Number(resident ?? 0) * 1_024;
  }
  return { cpuUs, residentBytes };
}

/** The first descendant of `pid` whose command line holds `text`. */
export function findDescendant(pid: number, text: string): number | undefined {
  return processTree(pid).find((member) => readProc(member, 'cmdline').includes(text));
}

/** `pid` and its descendants. */
function processTree(pid: number): readonly number[] {
  const children = readProc(pid, `task/${pid}/children`).trim();
  if (children === '') return [pid];
  return [pid, ...children.split(' ').flatMap((child) => processTree(Number(child)))];
}

function readProc(pid: number, file: string): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'utf8');
  } catch {
    return '';
  }
}
