import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { accessSync, constants, readFileSync } from 'node:fs';
import { join } from 'node:path';

import { eventually } from '../eventually.ts';
import { findProgram, type FoundProgram } from '../test-packages.ts';
import { type GuestImage, shellPort } from './guest-image.ts';
import { GuestShell } from './guest-shell.ts';
import { QmpClient } from './qmp-client.ts';

/** kvm runs the guest's code on the processor; tcg translates it, some ten times slower, and needs nothing of the machine. */
export type Accelerator = 'kvm' | 'tcg';

export interface QemuGuestOptions {
  readonly image: GuestImage;
  /** Gets the sockets and the console's log; short, as a socket's path has 107 bytes at most. */
  readonly directory: string;
  readonly accelerator: Accelerator;
  /** Names of virtio-serial ports; the host's end of each is `portPath(name)`. */
  readonly ports?: readonly string[];
  readonly memoryMebibytes?: number;
  readonly cpuCount?: number;
  /** Further arguments of QEMU: disks, `-incoming`. */
  readonly extraArguments?: readonly string[];
}

const memoryMebibytesDefault = 768;
const bootTimeoutMs = { kvm: 20_000, tcg: 60_000 } as const;
const connectTimeoutMs = 10_000;

/**
 * The fastest that works here. A /dev/kvm without the processor's own virtualization (PVM, in some nested machines) runs only
 * kernels that are made for it.
 */
export function availableAccelerator(): Accelerator {
  try {
    accessSync('/dev/kvm', constants.R_OK | constants.W_OK);
    return /^flags\s*:.*\b(?:vmx|svm)\b/m.test(readFileSync('/proc/cpuinfo', 'utf8'))
      ? 'kvm'
      : 'tcg';
  } catch {
    return 'tcg';
  }
}

/** QEMU of this machine or a private copy; a text that says why it can't be had. */
export async function findQemu(): Promise<FoundProgram | string> {
  if (process.arch !== 'x64') return `the guest's kernel is for x86-64, this is ${process.arch}`;
  return findProgram('qemu-system-x86_64');
}

/** A virtual machine that runs under QEMU, with QMP and a shell inside. Disposal ends it. */
export class QemuGuest implements AsyncDisposable {
  readonly child: ChildProcess;
  readonly qmp: QmpClient;
  readonly shell: GuestShell;
  readonly #options: QemuGuestOptions;

  private constructor(
    child: ChildProcess,
    connections: { readonly qmp: QmpClient; readonly shell: GuestShell },
    options: QemuGuestOptions,
  ) {
    this.child = child;
    this.qmp = connections.qmp;
    this.shell = connections.shell;
    this.#options = options;
  }

  /** Boots one and resolves when its shell answers. */
  static async boot(qemu: FoundProgram, options: QemuGuestOptions): Promise<QemuGuest> {
    const child = spawn(qemu.path, qemuArguments(qemu, options), {
      stdio: ['ignore', 'ignore', 'pipe'],
      env: { ...process.env, ...qemu.environment },
    });
    let complaint = '';
    child.stderr.on('data', (chunk: Buffer) => {
      complaint += chunk.toString();
    });
    child.on('error', (error) => {
      complaint += error.message;
    });
    const { directory, accelerator } = options;
    try {
      const connected = <Connection>(connect: () => Promise<Connection>): Promise<Connection> =>
        eventually(connect, { timeoutMs: connectTimeoutMs }) as Promise<Connection>;
      const qmp = await connected(() => QmpClient.connect(join(directory, qmpSocketName)));
      const shell = await connected(() => GuestShell.connect(portPath(directory, shellPort)));
      const guest = new QemuGuest(child, { qmp, shell }, options);
      await shell.ready(bootTimeoutMs[accelerator]);
      return guest;
    } catch (error) {
      await killed(child);
      const said = `${complaint}\n${readConsole(directory)}`;
      throw new Error(`the guest did not boot:\n${said}`, { cause: error });
    }
  }

  /** The unix socket that is the host's end of a virtio-serial port. */
  portPath(name: string): string {
    return portPath(this.#options.directory, name);
  }

  /** What the guest's kernel and init printed. */
  console(): string {
    return readConsole(this.#options.directory);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.shell.close();
    this.qmp.close();
    await killed(this.child);
  }
}

const qmpSocketName = 'qmp.sock';
const consoleName = 'console.log';

function portPath(directory: string, name: string): string {
  return join(directory, `${name}.sock`);
}

function qemuArguments(qemu: FoundProgram, options: QemuGuestOptions): readonly string[] {
  const { image, directory, accelerator, ports = [], cpuCount = 1 } = options;
  const { memoryMebibytes = memoryMebibytesDefault, extraArguments = [] } = options;
  const machine =
    `-nodefaults -no-user-config -display none -no-reboot -M q35 -accel ${accelerator} -cpu max ` +
    `-smp ${cpuCount} -m ${memoryMebibytes} -device virtio-serial-pci`;
  return [
    ...firmwareArguments(qemu),
    ...machine.split(' '),
    '-kernel',
    image.kernelPath,
    '-initrd',
    image.initramfsPath,
    '-append',
    'console=ttyS0 panic=-1 quiet',
    '-serial',
    `file:${join(directory, consoleName)}`,
    '-qmp',
    `unix:${listening(join(directory, qmpSocketName))}`,
    ...[shellPort, ...ports].flatMap((name, index) => [
      '-chardev',
      `socket,id=port${index},path=${listening(portPath(directory, name))}`,
      '-device',
      `virtserialport,chardev=port${index},name=${name}`,
    ]),
    ...extraArguments,
  ];
}

function listening(path: string): string {
  return `${path},server=on,wait=off`;
}

/** A private copy's firmware lies beside it, where QEMU doesn't look. */
function firmwareArguments({ root }: FoundProgram): readonly string[] {
  if (root === undefined) return [];
  return ['-L', join(root, 'usr/share/qemu'), '-L', join(root, 'usr/share/seabios')];
}

function readConsole(directory: string): string {
  try {
    return readFileSync(join(directory, consoleName), 'utf8');
  } catch {
    return '';
  }
}

async function killed(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return;
  const exited = once(child, 'exit');
  child.kill('SIGKILL');
  await exited;
}
