import { numbersByName, readKernelFile, type KernelRoots } from './proc-files.ts';

/** How much the control groups of a process let it use; null: no limit, or not told. */
export interface ControlGroupFacts {
  /** What it could still take before a group is full, page cache that the kernel would give back included. */
  readonly memoryLeftBytes: number | null;
  /** CPUs that the quota amounts to. */
  readonly cpuLimitCount: number | null;
}

/** cgroup v1 says "no limit" with a number of pages close to 2^63. */
const noLimitFromBytes = 2 ** 60;

/** Files of one version's controllers, Documentation/admin-guide/cgroup-v1/memory.rst and cgroup-v2.rst. */
interface Files {
  readonly limit: string;
  readonly used: string;
  /** In memory.stat: cache of the group and those below it that was not used lately. */
  readonly reclaimable: string;
}
const v1Files: Files = {
  limit: 'memory.limit_in_bytes',
  used: 'memory.usage_in_bytes',
  reclaimable: 'total_inactive_file',
};
const v2Files: Files = {
  limit: 'memory.max',
  used: 'memory.current',
  reclaimable: 'inactive_file',
};

/**
 * Limits of the control groups that /proc/PID/cgroup names: v2, v1, and hybrids of both. A limit binds everything below
 * its group, and it is often an outer one that has it (libvirt: that of `machine-qemu.scope`, while QEMU is in
 * `libvirt/emulator` below), so all up to the root are looked at. The root group has no limits.
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
  const groupsOf = (controller: string, root: string): readonly string[] =>
    memberships
      .filter(({ controllers }) => controllers.includes(controller))
      .flatMap(({ path }) => upwards(path))
      .map((path) => `${root}${path}`);
  const unified = groupsOf('', roots.cgroup);
  return {
    memoryLeftBytes: least([
      ...unified.map((group) => memoryLeft(group, v2Files)),
      ...groupsOf('memory', `${roots.cgroup}/memory`).map((group) => memoryLeft(group, v1Files)),
    ]),
    cpuLimitCount: least([
      ...unified.map(unifiedQuota),
      ...groupsOf('cpu', `${roots.cgroup}/cpu`).map(quota),
    ]),
  };
}

/** `/a/b`: `/a/b` and `/a`. */
function upwards(path: string): readonly string[] {
  const names = path
    .split('/')
    .slice(1)
    .filter((name) => name !== '');
  return names.map((_name, index) => `/${names.slice(0, names.length - index).join('/')}`);
}

function memoryLeft(group: string, files: Files): number | null {
  const limitBytes = numberIn(group, files.limit);
  if (limitBytes === null || limitBytes >= noLimitFromBytes) return null;
  const statistics = numbersByName(readKernelFile(`${group}/memory.stat`) ?? '');
  const usedBytes = (numberIn(group, files.used) ?? 0) - (statistics.get(files.reclaimable) ?? 0);
  return Math.max(0, limitBytes - Math.max(0, usedBytes));
}

function unifiedQuota(group: string): number | null {
  const [quotaUs, periodUs] = (readKernelFile(`${group}/cpu.max`) ?? '').trim().split(' ');
  const hasQuota = quotaUs !== undefined && /^\d+$/.test(quotaUs) && Number(periodUs) > 0;
  return hasQuota ? Number(quotaUs) / Number(periodUs) : null;
}

function quota(group: string): number | null {
  const quotaUs = numberIn(group, 'cpu.cfs_quota_us');
  const periodUs = numberIn(group, 'cpu.cfs_period_us');
  return quotaUs === null || periodUs === null || periodUs === 0 ? null : quotaUs / periodUs;
}

/** The file's only number; null for `max`, -1 and files that are not there. */
function numberIn(group: string, file: string): number | null {
  const text = readKernelFile(`${group}/${file}`);
  return text === null ? null : (numbersByName(`value ${text}`).get('value') ?? null);
}

function least(values: readonly (number | null)[]): number | null {
  const known = values.filter((value) => value !== null);
  return known.length === 0 ? null : Math.min(...known);
}
