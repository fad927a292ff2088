import type { DataPoint } from '../../common/wire/data-point.ts';
import { CumulativeCounters } from './cumulative-counters.ts';
import { infraDataPoints, type Probe, type ProbeReading } from './probe.ts';
import {
  kernelRoots,
  parseInterfaces,
  readKernelFile,
  readMemory,
  ticksToUs,
  type KernelRoots,
} from './proc-files.ts';

/** Whole disks by their kernel names; partitions, loop devices, RAM disks and stacked devices would count twice. */
const wholeDisk = /^(?:(?:sd|vd|xvd|hd)[a-z]+|nvme\d+n\d+|mmcblk\d+)$/;
/** Documentation/admin-guide/iostats.rst: sectors are 512 bytes whatever the device says. */
const sectorBytes = 512;

/** The whole machine, from /proc: for a VM that is its own host, as with `isobar up`. */
export class MachineProbe implements Probe {
  readonly #procRoot: string;
  readonly #disksRead = new CumulativeCounters();
  readonly #disksWritten = new CumulativeCounters();
  readonly #received = new CumulativeCounters();
  readonly #sent = new CumulativeCounters();
  #lastCpu: { readonly busyTicks: number; readonly totalTicks: number } | null = null;

  constructor(roots: KernelRoots = kernelRoots) {
    this.#procRoot = roots.proc;
  }

  read(): ProbeReading {
    const values = new Map<DataPoint, number>();
    this.#readCpu(values);
    const memory = readMemory(this.#procRoot);
    if (memory !== null) {
      values.set(infraDataPoints.memoryUsedBytes, memory.totalBytes - memory.availableBytes);
      values.set(infraDataPoints.memoryAvailableBytes, memory.availableBytes);
    }
    this.#readDisks(values);
    this.#readNetwork(values);
    return { kind: 'values', isSuspended: false, values };
  }

  #readCpu(values: Map<DataPoint, number>): void {
    const line = /^cpu +(.*)$/m.exec(readKernelFile(`${this.#procRoot}/stat`) ?? '')?.[1];
    if (line === undefined) return;
    // proc(5): user nice system idle iowait irq softirq steal; guest times are part of user and nice.
    const fields = line.trim().split(' ').map(Number).slice(0, 8);
    const totalTicks = fields.reduce((sum, ticks) => sum + ticks, 0);
    const busyTicks = totalTicks - (fields[3] ?? 0) - (fields[4] ?? 0);
    values.set(infraDataPoints.cpuTimeUs, ticksToUs(busyTicks));
    const last = this.#lastCpu;
    // iowait can go back; then this sample has no ratio and the next one begins here.
    const isComparable =
      last !== null && totalTicks > last.totalTicks && busyTicks >= last.busyTicks;
    if (isComparable) {
      const ratio = (busyTicks - last.busyTicks) / (totalTicks - last.totalTicks);
      values.set(infraDataPoints.cpuUsageRatio, Math.min(1, ratio));
    }
    // Samples within one tick of the kernel have nothing to compare.
    if (last === null || totalTicks !== last.totalTicks) this.#lastCpu = { busyTicks, totalTicks };
  }

  #readDisks(values: Map<DataPoint, number>): void {
    const text = readKernelFile(`${this.#procRoot}/diskstats`);
    if (text === null) return;
    const disks = text
      .split('\n')
      .map((line) => line.trim().split(/\s+/))
      .filter((fields) => wholeDisk.test(fields[2] ?? ''));
    const column = (index: number): [string, number][] =>
      disks.map((fields) => [fields[2] ?? '', Number(fields[index]) * sectorBytes]);
    values.set(infraDataPoints.diskReadBytes, this.#disksRead.update(column(5)));
    values.set(infraDataPoints.diskWrittenBytes, this.#disksWritten.update(column(9)));
  }

  #readNetwork(values: Map<DataPoint, number>): void {
    const text = readKernelFile(`${this.#procRoot}/net/dev`);
    if (text === null) return;
    const interfaces = parseInterfaces(text);
    const received = interfaces.map((item) => [item.name, item.receivedBytes] as const);
    const sent = interfaces.map((item) => [item.name, item.sentBytes] as const);
    values.set(infraDataPoints.networkReceivedBytes, this.#received.update(received));
    values.set(infraDataPoints.networkSentBytes, this.#sent.update(sent));
  }
}
