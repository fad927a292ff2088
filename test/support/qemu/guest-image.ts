import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';

import { packageRoot } from '../../../common/runtime/package-root.ts';
import { findProgram, type TestProgram } from '../test-packages.ts';
import { addModules, findGuestKernel } from './guest-kernel.ts';
import { Initramfs } from './initramfs.ts';

/** What a guest boots. */
export interface GuestImage {
  readonly kernelPath: string;
  readonly kernelRelease: string;
  readonly initramfsPath: string;
}

export interface GuestImageOptions {
  /** Further programs of this machine, by their path in the guest. */
  readonly programs?: Readonly<Record<string, string>>;
  /** Further files, by their path in the guest. */
  readonly texts?: Readonly<Record<string, string>>;
}

/** The guest's end of the port on which {@link SerialShell} runs commands. */
export const shellPort = 'org.isobar.test-shell';
/** Where our package is in the guest. */
export const packageInGuest = '/opt/isobar';

/** In the order of loading; `addModules` adds what they need. */
const moduleNames = ['virtio_pci', 'virtio_console', 'fuse'];
/** Programs of this machine that every guest has. */
export const guestPrograms = ['dash', 'mount', 'umount'] as const satisfies readonly TestProgram[];
/** What our compiled code loads from node_modules; better-sqlite3 needs prebuild-install only to be installed. */
const dependencies = ['@hono/node-server', 'better-sqlite3', 'cbor-x', 'hono', 'pino', 'zod'];
const installOnly = ['prebuild-install'];
const notNeededToRun = /\.(?:map|d\.[cm]?ts|md|c|cpp|hpp|h|a|o)$|\/better-sqlite3\/deps$/;

/**
 * Builds a guest that has Node, our compiled code, busybox and util-linux's mount, all of this machine, in `directory`.
 * Its init loads the drivers and serves a shell on a virtio-serial port. Throws when a part can't be had, which
 * `findGuestKernel` and `findProgram` tell before.
 */
export async function buildGuestImage(
  directory: string,
  options: GuestImageOptions = {},
): Promise<GuestImage> {
  const kernel = had(await findGuestKernel());
  const busybox = had(await findProgram('busybox'));
  const initramfs = new Initramfs();
  initramfs.copy('/usr/bin/busybox', busybox.path, 0o755);
  for (const name of guestPrograms) {
    await initramfs.program(`/usr/bin/${name}`, had(await findProgram(name)).path);
  }
  initramfs.link('/usr/bin/sh', 'dash');
  await initramfs.program('/usr/bin/node', process.execPath);
  await addPackage(initramfs);
  for (const [path, source] of Object.entries(options.programs ?? {})) {
    await initramfs.program(path, source);
  }
  for (const [path, text] of Object.entries(options.texts ?? {})) initramfs.text(path, text);
  const modules = addModules(initramfs, kernel, moduleNames);
  initramfs.text('/init', initScript(modules), 0o755);
  const initramfsPath = join(directory, 'initramfs.cpio');
  initramfs.writeTo(initramfsPath);
  return { kernelPath: kernel.imagePath, kernelRelease: kernel.release, initramfsPath };
}

function had<Part extends object>(part: Part | string): Part {
  if (typeof part === 'string') throw new Error(part);
  return part;
}

async function addPackage(initramfs: Initramfs): Promise<void> {
  const root = packageRoot();
  initramfs.copy(join(packageInGuest, 'package.json'), join(root, 'package.json'));
  addTree(initramfs, root, 'dist');
  for (const name of withDependencies(root, dependencies)) {
    addTree(initramfs, root, join('node_modules', name));
  }
  const sqlite = 'node_modules/better-sqlite3/build/Release/better_sqlite3.node';
  await initramfs.program(join(packageInGuest, sqlite), join(root, sqlite));
}

function addTree(initramfs: Initramfs, root: string, path: string): void {
  if (notNeededToRun.test(path)) return;
  const source = join(root, path);
  if (!statSync(source).isDirectory()) {
    initramfs.copy(join(packageInGuest, path), source);
    return;
  }
  for (const name of readdirSync(source)) addTree(initramfs, root, join(path, name));
}

/** Names of packages in node_modules and of what they need there. */
function withDependencies(root: string, names: readonly string[]): ReadonlySet<string> {
  const found = new Set<string>();
  const add = (name: string): void => {
    const path = join(root, 'node_modules', name, 'package.json');
    if (found.has(name) || installOnly.includes(name) || !existsSync(path)) return;
    found.add(name);
    const manifest = JSON.parse(readFileSync(path, 'utf8')) as {
      readonly dependencies?: Readonly<Record<string, string>>;
    };
    for (const needed of Object.keys(manifest.dependencies ?? {})) add(needed);
  };
  for (const name of names) add(name);
  return found;
}

/**
 * Process 1. No udev runs, so it names the virtio-serial ports itself, as udev would. Commands come base64-encoded, a line
 * each; the answer is a line of exit code and base64-encoded output. What goes wrong is on the console.
 */
function initScript(modules: readonly string[]): string {
  return `#!/usr/bin/busybox sh
export PATH=/usr/sbin:/usr/bin HOME=/root
busybox mkdir -p /proc /sys /dev /tmp /root /var
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t devtmpfs devtmpfs /dev
busybox mount -t tmpfs tmpfs /tmp
busybox mount -t tmpfs tmpfs /var
busybox --install -s /usr/bin 2>/dev/null
busybox mkdir -p /dev/virtio-ports /dev/shm
for module in ${modules.join(' ')}; do busybox insmod $module; done
busybox ip link set lo up
until test -e /dev/virtio-ports/${shellPort}; do
  for port in /sys/class/virtio-ports/*; do
    name=$(busybox cat $port/name 2>/dev/null) && busybox ln -sf /dev/\${port##*/} /dev/virtio-ports/$name
  done
  busybox usleep 10000
done
exec 3<>/dev/virtio-ports/${shellPort}
echo ready >&3
while read -r command <&3; do
  echo "$command" | busybox base64 -d >/tmp/command
  dash /tmp/command </dev/null >/tmp/output 2>&1
  echo "$? $(busybox base64 -w 0 /tmp/output)" >&3
done
busybox poweroff -f
`;
}
