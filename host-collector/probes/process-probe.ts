import { readdirSync, readlinkSync } from 'node:fs';

import type { Clock } from '../../common/runtime/clock.ts';
import type { DataPoint } from '../../common/wire/data-point.ts';
import { readControlGroup, type ControlGroupFacts } from './control-group.ts';
import { CumulativeCounters } from './cumulative-counters.ts';
import { infraDataPoints, type Probe, type ProbeReading } from './probe.ts';
import {
  countCpus,
  kernelRoots,
  numbersByName,
  parseInterfaces,
  readKernelFile,
  readMemory,
  ticksToUs,
  type InterfaceCounters,
  type KernelRoots,
} from './proc-files.ts';
import type { ProcessMemory } from './process-memory.ts';

/** Descriptors looked at for the VM's network devices. */
const descriptorsMax = 4_096;

/**
 * One hypervisor process and its control groups. CPU, memory and disk are the process's own; what it may use is bounded
 * by its groups. Its network is its tap devices, seen from the guest's side, or all interfaces of a network name space
 * of its own; without either, network is left out.
 */
export class ProcessProbe implements Probe {
  readonly #roots: KernelRoots;
  readonly #pid: number;
  readonly #clock: Clock;
  readonly #received = new CumulativeCounters();
  readonly #sent = new CumulativeCounters();
  readonly #memory: ProcessMemory | null;
  /** The machine's boot and the process's start in ticks since: one with another has only got the same number. */
  #identity: string | null = null;
  #lastCpu: { readonly timeUs: number; readonly atMs: number } | null = null;

  /** Without `memory`, whatever process has the number at the first reading is the one. */
  constructor(
    deps: { readonly clock: Clock; readonly memory?: ProcessMemory },
    pid: number,
    roots: KernelRoots = kernelRoots,
  ) {
    this.#clock = deps.clock;
    this.#memory = deps.memory ?? null;
    this.#pid = pid;
    this.#roots = roots;
  }

  read(): ProbeReading {
    const stat = parseStat(readKernelFile(this.#path('stat')) ?? '');
    if (stat === null || stat.state === 'Z' || stat.state === 'X') return { kind: 'vanished' };
    if (!this.#isSame(stat)) return { kind: 'vanished' };

    const values = new Map<DataPoint, number>();
    const group = readControlGroup(this.#roots, this.#pid);
    this.#readCpu(stat.cpuTimeUs, group, values);
    this.#readMemory(group, values);
    const io = numbersByName(readKernelFile(this.#path('io')) ?? '');
    setIfKnown(values, infraDataPoints.diskReadBytes, io.get('read_bytes'));
    setIfKnown(values, infraDataPoints.diskWrittenBytes, io.get('write_bytes'));
    this.#readNetwork(values);
    return { kind: 'values', isSuspended: stat.state === 'T' || stat.state === 't', values };
  }

  #isSame({ startTicks }: ProcessStat): boolean {
    const bootId = readKernelFile(`${this.#roots.proc}/sys/kernel/random/boot_id`)?.trim() ?? '';
    const identity = `${bootId} ${startTicks}`;
    if (this.#identity === null) {
      this.#identity = this.#memory?.recall(this.#pid) ?? identity;
      this.#memory?.remember(this.#pid, this.#identity);
    }
    return identity === this.#identity;
  }

  #readCpu(timeUs: number, group: ControlGroupFacts, values: Map<DataPoint, number>): void {
    values.set(infraDataPoints.cpuTimeUs, timeUs);
    const atMs = this.#clock.monotonicMs();
    const last = this.#lastCpu;
    this.#lastCpu = { timeUs, atMs };
    if (last === null || atMs <= last.atMs || timeUs < last.timeUs) return;
    const cpuCount = countCpus(readKernelFile(`${this.#roots.proc}/stat`) ?? '');
    const usableCount = Math.min(cpuCount, group.cpuLimitCount ?? cpuCount);
    const ratio = (timeUs - last.timeUs) / 1_000 / (atMs - last.atMs) / usableCount;
    // The kernel counts in ticks of 10 ms, so that short spans can seem more than full.
    values.set(infraDataPoints.cpuUsageRatio, Math.min(1, ratio));
  }

  #readMemory(group: ControlGroupFacts, values: Map<DataPoint, number>): void {
    const residentKib = numbersByName(readKernelFile(this.#path('status')) ?? '').get('VmRSS');
    if (residentKib !== undefined) values.set(infraDataPoints.memoryUsedBytes, residentKib * 1_024);
    const machineBytes = readMemory(this.#roots.proc)?.availableBytes;
    const groupBytes = group.memoryLeftBytes ?? undefined;
    const known = [machineBytes, groupBytes].filter((bytes) => bytes !== undefined);
    if (known.length > 0) values.set(infraDataPoints.memoryAvailableBytes, Math.min(...known));
  }

  #readNetwork(values: Map<DataPoint, number>): void {
    const interfaces = this.#guestInterfaces();
    if (interfaces.length === 0) return;
    const received = interfaces.map((item) => [item.name, item.receivedBytes] as const);
    const sent = interfaces.map((item) => [item.name, item.sentBytes] as const);
    values.set(infraDataPoints.networkReceivedBytes, this.#received.update(received));
    values.set(infraDataPoints.networkSentBytes, this.#sent.update(sent));
  }

  #guestInterfaces(): readonly InterfaceCounters[] {
    const own = readLink(this.#path('ns/net'));
    const host = readLink(`${this.#roots.proc}/self/ns/net`);
    const text = readKernelFile(this.#path('net/dev')) ?? '';
    if (own !== null && host !== null && own !== host) return parseInterfaces(text);
    const taps = this.#tapNames();
    return parseInterfaces(text)
      .filter(({ name }) => taps.has(name))
      .map(({ name, receivedBytes, sentBytes }) => ({
        name,
        // What the host receives from a tap device, the guest has sent.
        receivedBytes: sentBytes,
        sentBytes: receivedBytes,
      }));
  }

  /** Names of the tap devices that the process holds: `iff:` in the fdinfo of /dev/net/tun. */
  #tapNames(): ReadonlySet<string> {
    const names = new Set<string>();
    for (const descriptor of listDirectory(this.#path('fd')).slice(0, descriptorsMax)) {
      if (readLink(this.#path(`fd/${descriptor}`)) !== '/dev/net/tun') continue;
      const information = readKernelFile(this.#path(`fdinfo/${descriptor}`)) ?? '';
      const name = /^iff:\s*(\S+)/m.exec(information)?.[1];
      if (name !== undefined) names.add(name);
    }
    return names;
  }

  #path(file: string): string {
    return `${this.#roots.proc}/${this.#pid}/${file}`;
  }
}

interface ProcessStat {
  readonly state: string;
  readonly cpuTimeUs: number;
  readonly startTicks: number;
}

/** proc(5), /proc/PID/stat: the name in parentheses may hold anything, so fields are counted from its end. */
function parseStat(text: string): ProcessStat | null {
  const end = text.lastIndexOf(')');
  if (end === -1) return null;
  const fields = text.slice(end + 2).split(' ');
  const [state, userTicks, systemTicks, startTicks] = [
    fields[0],
    fields[11],
    fields[12],
    fields[19],
  ];
  if (state === undefined || startTicks === undefined) return null;
  return {
    state,
    cpuTimeUs: ticksToUs(Number(userTicks) + Number(systemTicks)),
    startTicks: Number(startTicks),
  };
}

function setIfKnown(
  values: Map<DataPoint, number>,
  dataPoint: DataPoint,
  value: number | undefined,
): void {
  if (value !== undefined) values.set(dataPoint, value);
}

function readLink(path: string): string | null {
  try {
    return readlinkSync(path);
  } catch {
    // Gone, or another user's: then it tells nothing.
    return null;
  }
}

function listDirectory(path: string): readonly string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}
