import { type BenchmarkReport, isReached, type Table } from './benchmark.ts';
import type { FsyncTime, Machine } from './machine.ts';

/** One line that says what the figures below it were measured on. */
export function machineLine(machine: Machine, fsync: FsyncTime): string {
  const memoryGibibytes = (machine.memoryBytes / 2 ** 30).toFixed(0);
  return [
    `${machine.cores} cores (${machine.processor}), ${memoryGibibytes} GiB`,
    `Linux ${machine.kernel}, Node ${machine.node}`,
    `load ${machine.loadAverage.toFixed(2)} before the run`,
    `fdatasync of this disk ${fsync.p50Us.toFixed(0)} µs (p99 ${fsync.p99Us.toFixed(0)} µs)`,
  ].join('; ');
}

/** A report as Markdown, to be pasted into docs/BENCHMARKS.md. */
export function markdownOf(title: string, report: BenchmarkReport): string {
  const parts = [`## ${title}`];
  for (const table of report.tables) parts.push(`${table.title}:`, tableText(table));
  if (report.goals.length > 0) {
    parts.push(
      tableText({
        title: 'Goals',
        columns: ['goal', 'to reach', 'reached', ''],
        rows: report.goals.map((goal) => [
          goal.what,
          `${goal.bound === 'least' ? '>=' : '<='} ${goal.limit}`,
          Number.isNaN(goal.reached) ? 'not measured' : goal.reached.toPrecision(3),
          isReached(goal) ? 'yes' : '**no**',
        ]),
      }),
    );
  }
  if (report.remarks.length > 0) {
    parts.push(report.remarks.map((remark) => `- ${remark}`).join('\n'));
  }
  return parts.join('\n\n');
}

function tableText(table: Table): string {
  return [
    line(table.columns),
    line(table.columns.map((_, index) => (index === 0 ? '---' : '---:'))),
    ...table.rows.map(line),
  ].join('\n');
}

function line(cells: readonly (string | number)[]): string {
  return `| ${cells.join(' | ')} |`;
}
