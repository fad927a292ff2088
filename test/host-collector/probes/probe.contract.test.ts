import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';

import { describe, expect, test } from 'vitest';

import { SystemClock } from '../../../common/runtime/clock.ts';
import { openDatabase } from '../../../common/sqlite/database.ts';
import { infraQuantities } from '../../../common/wire/data-point.ts';
import { vmIdSchema } from '../../../common/wire/vm-descriptor.ts';
import { migrateCollector } from '../../../host-collector/origin/collector-schema.ts';
import { MachineProbe } from '../../../host-collector/probes/machine-probe.ts';
import { infraDataPoints, type Probe } from '../../../host-collector/probes/probe.ts';
import { StoredProcessMemory } from '../../../host-collector/probes/process-memory.ts';
import { ProcessProbe } from '../../../host-collector/probes/process-probe.ts';
import { ManualClock } from '../../support/manual-clock.ts';
import { describeUnless, programObstacle, rootObstacle } from '../../support/requirements.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

const pid = 4_711;
const mib = 1_048_576;

/** A kernel's files as recorded, written below `root`. */
function record(root: string, files: Readonly<Record<string, string>>): void {
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(root, name)), { recursive: true });
    writeFileSync(join(root, name), text);
  }
}

function tree(root: string): { proc: string; cgroup: string } {
  record(root, {
    'proc/stat':
      'cpu  100 0 50 800 50 0 0 0 0 0\ncpu0 50 0 25 400 25 0 0 0 0 0\ncpu1 50 0 25 400 25 0 0 0 0 0\n',
    'proc/meminfo': 'MemTotal:        8192 kB\nMemFree:  1 kB\nMemAvailable:    6144 kB\n',
    'proc/diskstats':
      ' 254 0 vda 9 0 100 0 9 0 200 0 0 0 0\n 254 1 vda1 9 0 100 0 9 0 200 0 0 0 0\n 7 0 loop0 1 0 9 0 1 0 9 0 0 0 0\n',
    'proc/net/dev':
      'Inter-|   Receive\n face |bytes\n    lo:    7 0 0 0 0 0 0 0 7 0 0 0 0 0 0 0\n  eth0: 1000 0 0 0 0 0 0 0 2000 0 0 0 0 0 0 0\n',
    [`proc/${pid}/stat`]: processStat('S', 100, 50, 99),
    [`proc/${pid}/status`]: 'Name:\tqemu (x) 1\nVmRSS:\t    1024 kB\n',
    [`proc/${pid}/io`]: 'rchar: 1\nread_bytes: 4096\nwrite_bytes: 8192\n',
  });
  return { proc: join(root, 'proc'), cgroup: join(root, 'cgroup') };
}

function processStat(state: string, user: number, system: number, start: number): string {
  return `${pid} (qemu (x) 1) ${state} 1 1 1 0 -1 0 0 0 0 0 ${user} ${system} 0 0 20 0 1 0 ${start} 0 0\n`;
}

interface Group {
  readonly limitBytes?: number;
  readonly usedBytes: number;
  readonly cacheBytes?: number;
  readonly quotaUs?: number;
}

/** A group as the kernel shows it: without a limit memory has one of 2^63 less a page, and the quota is -1. */
function v1Group(path: string, group: Group): Record<string, string> {
  return {
    [`cgroup/memory/${path}/memory.limit_in_bytes`]: `${group.limitBytes ?? '9223372036854771712'}\n`,
    [`cgroup/memory/${path}/memory.usage_in_bytes`]: `${group.usedBytes}\n`,
    [`cgroup/memory/${path}/memory.stat`]: `cache 5\ninactive_file 7\nhierarchical_memory_limit 9\ntotal_cache 5\ntotal_inactive_file ${group.cacheBytes ?? 0}\n`,
    [`cgroup/cpu/${path}/cpu.cfs_quota_us`]: `${group.quotaUs ?? -1}\n`,
    [`cgroup/cpu/${path}/cpu.cfs_period_us`]: '100000\n',
  };
}

function v2Group(path: string, group: Group): Record<string, string> {
  return {
    [`cgroup/${path}/memory.max`]: `${group.limitBytes ?? 'max'}\n`,
    [`cgroup/${path}/memory.current`]: `${group.usedBytes}\n`,
    [`cgroup/${path}/memory.stat`]: `anon 5\nfile 7\ninactive_anon 3\ninactive_file ${group.cacheBytes ?? 0}\n`,
    [`cgroup/${path}/cpu.max`]: `${group.quotaUs ?? 'max'} 100000\n`,
  };
}

const implementations: readonly [name: string, make: () => Probe][] = [
  ['machine, this one', () => new MachineProbe()],
  ['process, this one', () => new ProcessProbe({ clock: new SystemClock() }, process.pid)],
];

describe.each(implementations)('Probe: %s', (_name, make) => {
  test('gives finite values of known data points, and cumulative ones never fall', () => {
    const probe = make();
    const first = probe.read();
    const block = Buffer.alloc(8 * mib, 1);
    const second = probe.read();
    expect(block.length).toBe(8 * mib);
    if (first.kind !== 'values' || second.kind !== 'values') throw new Error('both are here');
    const known = new Set<string>(Object.values(infraDataPoints));
    for (const [dataPoint, value] of second.values) {
      expect(known.has(dataPoint)).toBe(true);
      expect(Number.isFinite(value) && value >= 0).toBe(true);
      const before = first.values.get(dataPoint) ?? 0;
      const isCumulative = /time_us|read|written|received|sent/.test(dataPoint);
      expect(!isCumulative || value >= before).toBe(true);
    }
    expect(second.values.get(infraDataPoints.cpuTimeUs)).toBeGreaterThan(0);
    expect(second.values.get(infraDataPoints.memoryUsedBytes)).toBeGreaterThan(mib);
    expect(second.values.get(infraDataPoints.memoryAvailableBytes)).toBeGreaterThan(0);
  });
});

test('a descriptor may name every quantity that a probe has, and no other', () => {
  expect(Object.values(infraDataPoints).toSorted()).toEqual(
    infraQuantities.map((quantity) => `infra/${quantity}`).toSorted(),
  );
});

describe('MachineProbe', () => {
  test('reads all quantities, whole disks only, and survives counters that begin again', () => {
    using directory = temporaryDirectory();
    const roots = tree(directory.path);
    const probe = new MachineProbe(roots);
    expect(Object.fromEntries(read(probe))).toEqual({
      'infra/cpu/time_us': 1_500_000,
      'infra/memory/used_bytes': 2_048 * 1_024,
      'infra/memory/available_bytes': 6_144 * 1_024,
      'infra/disk/read_bytes': 51_200,
      'infra/disk/written_bytes': 102_400,
      'infra/network/received_bytes': 1_000,
      'infra/network/sent_bytes': 2_000,
    });
    record(directory.path, {
      'proc/stat': 'cpu  150 0 50 850 50 0 0 0 0 0\n',
      'proc/net/dev': '  eth0: 10 0 0 0 0 0 0 0 20 0 0 0 0 0 0 0\n',
    });
    const second = read(probe);
    expect(second.get(infraDataPoints.cpuUsageRatio)).toBe(0.5);
    expect(second.get(infraDataPoints.networkReceivedBytes)).toBe(1_010);
  });
});

describe('ProcessProbe', () => {
  test.each([
    [
      'cgroup v1, libvirt',
      '11:cpuset:/machine.slice/vm.scope/libvirt/emulator\n4:memory:/machine.slice/vm.scope/libvirt/emulator\n3:cpu,cpuacct:/machine.slice/vm.scope/libvirt/emulator\n1:name=systemd:/machine.slice/vm.scope\n0::/machine.slice/vm.scope\n',
      {
        ...v1Group('machine.slice/vm.scope/libvirt/emulator', { usedBytes: mib }),
        ...v1Group('machine.slice/vm.scope', {
          limitBytes: 4 * mib,
          usedBytes: 2 * mib,
          cacheBytes: mib,
          quotaUs: 50_000,
        }),
        ...v1Group('machine.slice', { usedBytes: 900 * mib, quotaUs: 400_000 }),
      },
    ],
    [
      'cgroup v1, the group of a container',
      '9:name=systemd:/\n4:memory:/docker/8cd126\n2:cpuacct:/docker/8cd126\n1:cpu:/docker/8cd126\n0::/\n',
      v1Group('docker/8cd126', { limitBytes: 4 * mib, usedBytes: mib, quotaUs: 50_000 }),
    ],
    [
      'cgroup v2, libvirt',
      '0::/machine.slice/machine-qemu\\x2d1\\x2dvm.scope/libvirt/emulator\n',
      {
        ...v2Group('machine.slice/machine-qemu\\x2d1\\x2dvm.scope/libvirt/emulator', {
          usedBytes: mib,
        }),
        ...v2Group('machine.slice/machine-qemu\\x2d1\\x2dvm.scope', {
          limitBytes: 4 * mib,
          usedBytes: 2 * mib,
          cacheBytes: mib,
          quotaUs: 50_000,
        }),
        ...v2Group('machine.slice', { limitBytes: 900 * mib, usedBytes: 2 * mib }),
      },
    ],
    [
      'cgroup v2, a slice of its own',
      '0::/vm.slice\n',
      v2Group('vm.slice', { limitBytes: 4 * mib, usedBytes: mib, quotaUs: 50_000 }),
    ],
  ])('%s bounds what the process may use', async (_name, membership, files) => {
    using directory = temporaryDirectory();
    const roots = tree(directory.path);
    record(directory.path, { [`proc/${pid}/cgroup`]: membership, ...files });
    const clock = new ManualClock();
    const probe = new ProcessProbe({ clock }, pid, roots);
    const first = read(probe);
    expect(first.get(infraDataPoints.memoryUsedBytes)).toBe(mib);
    expect(first.get(infraDataPoints.memoryAvailableBytes)).toBe(3 * mib);
    expect(first.get(infraDataPoints.diskReadBytes)).toBe(4_096);
    record(directory.path, { [`proc/${pid}/stat`]: processStat('T', 110, 65, 99) });
    await clock.advance(1_000);
    // A quarter of a second of CPU time in a second, of half a CPU.
    expect(read(probe).get(infraDataPoints.cpuUsageRatio)).toBe(0.5);
    expect(probe.read()).toMatchObject({ isSuspended: true });
  });

  test('a process with the same number but another start is another one', () => {
    using directory = temporaryDirectory();
    const probe = new ProcessProbe({ clock: new ManualClock() }, pid, tree(directory.path));
    expect(probe.read().kind).toBe('values');
    record(directory.path, { [`proc/${pid}/stat`]: processStat('S', 1, 1, 100) });
    expect(probe.read()).toEqual({ kind: 'vanished' });
  });

  test('over a restart of the collector, a process that got the number meanwhile is another one', () => {
    using directory = temporaryDirectory();
    const roots = tree(directory.path);
    const bootId = 'proc/sys/kernel/random/boot_id';
    record(directory.path, { [bootId]: 'boot-1\n' });
    const database = openDatabase(join(directory.path, 'collector.db'));
    migrateCollector(database);
    // Each reading is one of a collector that has just started.
    const readAnew = (vm: string): string => {
      const memory = new StoredProcessMemory(database, vmIdSchema.parse(vm));
      return new ProcessProbe({ clock: new ManualClock(), memory }, pid, roots).read().kind;
    };
    expect([readAnew('vm1'), readAnew('vm1')]).toEqual(['values', 'values']);
    record(directory.path, { [`proc/${pid}/stat`]: processStat('S', 1, 1, 100) });
    expect([readAnew('vm1'), readAnew('vm1')]).toEqual(['vanished', 'vanished']);
    expect(readAnew('vm2')).toBe('values');
    // The same number and the same ticks since boot, after another boot of the host.
    record(directory.path, { [bootId]: 'boot-2\n' });
    expect(readAnew('vm2')).toBe('vanished');
    database.close();
  });

  test('a process that ends has vanished', async () => {
    const child = spawn(process.execPath, ['-e', 'process.stdin.resume()'], {
      stdio: ['pipe', 'ignore', 'ignore'],
    });
    const probe = new ProcessProbe({ clock: new SystemClock() }, child.pid ?? 0);
    expect(probe.read().kind).toBe('values');
    const ended = once(child, 'exit');
    child.kill('SIGKILL');
    await ended;
    expect(probe.read()).toEqual({ kind: 'vanished' });
  });
});

function read(probe: Probe): ReadonlyMap<string, number> {
  const reading = probe.read();
  if (reading.kind === 'vanished') throw new Error('it is here');
  return reading.values;
}

/** Sends a frame of 1,000 bytes from one end of a pair of interfaces to the other for each line that it reads. */
const sender = `
import socket, subprocess, sys
def ip(*words): subprocess.run(["ip", "link", *words], check=True)
ip("add", "eth0", "type", "veth", "peer", "name", "eth1")
for name in ("eth0", "eth1"): ip("set", name, "up")
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
wire.bind(("eth0", 0))
print("ready", flush=True)
for _ in sys.stdin:
    wire.send(bytes(12) + bytes([0x88, 0xb5]) + bytes(986))
    print("sent", flush=True)
`;

const obstacle =
  rootObstacle() ??
  programObstacle('unshare', 'util-linux') ??
  programObstacle('ip', 'iproute2') ??
  programObstacle('python3', 'python3') ??
  networkNamespaceObstacle();

describeUnless(obstacle, 'ProcessProbe of a process in a network name space of its own', () => {
  test('its network is all interfaces of that name space, and none of the host', async () => {
    const child = spawn('unshare', ['--net', 'python3', '-c', sender], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    const lines = createInterface(child.stdout);
    const nextLine = async (): Promise<unknown> => (await once(lines, 'line'))[0] as unknown;
    const exited = once(child, 'exit');
    try {
      expect(await nextLine()).toBe('ready');
      const probe = new ProcessProbe({ clock: new SystemClock() }, child.pid ?? 0);
      const before = read(probe);
      for (let index = 0; index < 20; index += 1) {
        child.stdin.write('\n');
        expect(await nextLine()).toBe('sent');
      }
      const after = read(probe);
      for (const dataPoint of [
        infraDataPoints.networkReceivedBytes,
        infraDataPoints.networkSentBytes,
      ]) {
        const bytes = (after.get(dataPoint) ?? NaN) - (before.get(dataPoint) ?? NaN);
        // The kernel may ask for neighbours in between.
        expect(bytes).toBeGreaterThanOrEqual(20_000);
        expect(bytes).toBeLessThan(22_000);
      }
    } finally {
      child.stdin.end();
      await exited;
    }
  });
});

/** A container's root may not make interfaces. */
function networkNamespaceObstacle(): string | undefined {
  const script = 'ip link add eth0 type veth peer name eth1';
  const { status } = spawnSync('unshare', ['--net', 'sh', '-c', script]);
  return status === 0 ? undefined : 'no network name space with a pair of interfaces can be made';
}
