import { numbersByName, readKernelFile, type KernelRoots } from './proc-files.ts';

/** What the control groups of a process say; null: no limit, or not told. */
export interface ControlGroupFacts {
  readonly memoryUsedBytes: number | null;
  readonly memoryLimitBytes: number | null;
  /** CPUs that the quota amounts to. */
  readonly cpuLimitCount: number | null;
}

/** cgroup v1 says "no limit" with a number of pages close to 2^63. */
const noLimitFromBytes = 2 ** 60;

/**
 * Limits and memory of the control groups that /proc/PID/cgroup names: v2, v1, and hybrids of both. The root group has
 * no limits, and its usage is everybody's, so it tells nothing.
 */
export function readControlGroup(roots: KernelRoots, pid: number): ControlGroupFacts {
  const memberships = (readKernelFile(`${roots.proc}/${pid}/cgroup`) ?? '')
    .split('\n')
    .flatMap((line) => {
      const match = /^\d+:([^:]*):(\/.*)$/.exec(line);
      return match === null
        ? []
        : [{ controllers: (match[1] ?? '').split(','), path: match[2] ?? '/' }];
    });
  const pathOf = (controller: string): string | null => {
    const path = memberships.find(({ controllers }) => controllers.includes(controller))?.path;
    return path === undefined || path === '/' ? null : path;
  };
  const unified = pathOf('');
  const memory = pathOf('memory');
  const cpu = pathOf('cpu');
  const v2 = unified === null ? null : readUnified(`${roots.cgroup}${unified}`);
  const v1Memory = memory === null ? null : `${roots.cgroup}/memory${memory}`;
  return {
    memoryUsedBytes: v2?.memoryUsedBytes ?? numberIn(v1Memory, 'memory.usage_in_bytes'),
    memoryLimitBytes: v2?.memoryLimitBytes ?? limit(numberIn(v1Memory, 'memory.limit_in_bytes')),
    cpuLimitCount:
      v2?.cpuLimitCount ?? (cpu === null ? null : readQuota(`${roots.cgroup}/cpu${cpu}`)),
  };
}

function readUnified(directory: string): ControlGroupFacts {
  const [quota, period] = (readKernelFile(`${directory}/cpu.max`) ?? '').trim().split(' ');
  const hasQuota = quota !== undefined && /^\d+$/.test(quota) && Number(period) > 0;
  return {
    memoryUsedBytes: numberIn(directory, 'memory.current'),
    memoryLimitBytes: numberIn(directory, 'memory.max'),
    cpuLimitCount: hasQuota ? Number(quota) / Number(period) : null,
  };
}

function readQuota(directory: string): number | null {
  const quotaUs = numberIn(directory, 'cpu.cfs_quota_us');
  const periodUs = numberIn(directory, 'cpu.cfs_period_us');
  return quotaUs === null || periodUs === null || periodUs === 0 ? null : quotaUs / periodUs;
}

/** The file's only number; null for `max`, -1 and files that are not there. */
function numberIn(directory: string | null, file: string): number | null {
  if (directory === null) return null;
  const text = readKernelFile(`${directory}/${file}`);
  return text === null ? null : (numbersByName(`value ${text}`).get('value') ?? null);
}

function limit(bytes: number | null): number | null {
  return bytes === null || bytes >= noLimitFromBytes ? null : bytes;
}
