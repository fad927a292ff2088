import { infraDataPoint, type DataPoint } from '../../common/wire/data-point.ts';

/**
 * Everything that a probe can measure of a VM from outside. A probe leaves out what its source does not tell; it never
 * makes up a value.
 */
export const infraDataPoints = {
  /** Share of the CPUs that the VM may use, since the sample before; 0 to 1. */
  cpuUsageRatio: infraDataPoint('cpu', 'usage_ratio'),
  /** CPU time used, cumulative. */
  cpuTimeUs: infraDataPoint('cpu', 'time_us'),
  memoryUsedBytes: infraDataPoint('memory', 'used_bytes'),
  /** What it could still take. */
  memoryAvailableBytes: infraDataPoint('memory', 'available_bytes'),
  /** Bytes since the source began to count; cumulative. */
  diskReadBytes: infraDataPoint('disk', 'read_bytes'),
  diskWrittenBytes: infraDataPoint('disk', 'written_bytes'),
  networkReceivedBytes: infraDataPoint('network', 'received_bytes'),
  networkSentBytes: infraDataPoint('network', 'sent_bytes'),
} as const;

export type ProbeValues = ReadonlyMap<DataPoint, number>;

export type ProbeReading =
  | { readonly kind: 'values'; readonly isSuspended: boolean; readonly values: ProbeValues }
  /** What was measured is gone, for good; a process that has its number now is another one. */
  | { readonly kind: 'vanished' };

/** Measures one VM from outside. Cumulative quantities never fall during the life of a probe. */
export interface Probe {
  /** Reads everything once, synchronously: the sources are in memory and answer within microseconds. */
  read(): ProbeReading;
}
