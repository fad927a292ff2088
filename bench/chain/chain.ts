import type { Benchmark } from '../benchmark.ts';
import { chainBacklog } from './backlog.ts';
import { chainFaults } from './faults.ts';
import { chainGrowth } from './growth.ts';
import { chainLatency } from './latency.ts';
import { chainProtection } from './protection.ts';
import { chainSustained } from './sustained.ts';

/** Sites in a row as real processes, from the save at the source to the value at the primary site. */
export const chainBenchmarks: readonly Benchmark[] = [
  chainLatency,
  chainFaults,
  chainSustained,
  chainBacklog,
  chainGrowth,
  chainProtection,
];
