/** A goal that the figures are held against; printed beside what was reached. */
export interface Goal {
  readonly what: string;
  readonly limit: number;
  /** `least`: reached when the value is not below the limit; `most`: when not above. */
  readonly bound: 'least' | 'most';
  readonly reached: number;
}

export interface Table {
  readonly title: string;
  readonly columns: readonly string[];
  readonly rows: readonly (readonly (string | number)[])[];
}

export interface BenchmarkReport {
  readonly tables: readonly Table[];
  readonly goals: readonly Goal[];
  /** What could not be measured and why, and whatever a reader must know to judge the figures. */
  readonly remarks: readonly string[];
  /** Every single measurement, for the JSON. */
  readonly details: unknown;
}

export interface BenchmarkContext {
  /** Fewer rounds and shorter ones: to see that it works, not to quote. */
  readonly isShort: boolean;
  /** An empty directory on the disk that is measured. */
  readonly diskPath: string;
  /** Where measured processes leave CPU profiles; undefined: they are not profiled. */
  readonly profileDirectory: string | undefined;
  /** Progress for whoever waits; never part of the result. */
  readonly progress: (text: string) => void;
}

export interface Benchmark {
  readonly name: string;
  readonly title: string;
  run(context: BenchmarkContext): Promise<BenchmarkReport>;
}

export function isReached(goal: Goal): boolean {
  return goal.bound === 'least' ? goal.reached >= goal.limit : goal.reached <= goal.limit;
}
