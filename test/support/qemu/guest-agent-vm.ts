import { join } from 'node:path';

import type { z } from 'zod';

import type { guestAgentConfigSchema } from '../../../guest-agent/config.ts';
import { eventually } from '../eventually.ts';
import { compileC } from '../programs/compile-c.ts';
import { findProgram, type FoundProgram } from '../test-packages.ts';
import { buildGuestImage, guestPrograms, packageInGuest } from './guest-image.ts';
import { findGuestKernel } from './guest-kernel.ts';
import { type Accelerator, availableAccelerator, findQemu, QemuGuest } from './qemu-guest.ts';

/** The port that carries the guest channel. */
export const channelPort = 'org.isobar.guest';
export const mountInGuest = '/mnt/kpi';

/** What can run a VM with the agent in it on this machine, or why nothing can. */
export type PreparedVm =
  | { readonly ok: true; readonly qemu: FoundProgram; readonly accelerator: Accelerator }
  | { readonly ok: false; readonly reason: string };

const configPath = '/etc/isobar-agent.json';
const agentLogPath = '/tmp/agent.log';
/** Node alone takes more than a second to start under tcg. */
const startTimeoutMs = 120_000;
const tcgUnresponsiveMaxMs = 120_000;

/** Finds or unpacks all that {@link AgentVm} needs. */
export async function prepareVm(): Promise<PreparedVm> {
  const qemu = await findQemu();
  if (typeof qemu === 'string') return { ok: false, reason: qemu };
  const kernel = await findGuestKernel();
  if (typeof kernel === 'string') return { ok: false, reason: kernel };
  for (const program of ['cc', 'busybox', ...guestPrograms] as const) {
    const found = await findProgram(program);
    if (typeof found === 'string') return { ok: false, reason: found };
  }
  return { ok: true, qemu, accelerator: availableAccelerator() };
}

/** A virtual machine in which the supervised guest agent serves {@link mountInGuest} and a real virtio-serial port. */
export class AgentVm implements AsyncDisposable {
  readonly guest: QemuGuest;

  private constructor(guest: QemuGuest) {
    this.guest = guest;
  }

  static async start(
    { qemu, accelerator }: PreparedVm & { readonly ok: true },
    directory: string,
  ): Promise<AgentVm> {
    const systemCalls = await compileC('test/support/programs/c/system-calls.c');
    const config: z.input<typeof guestAgentConfigSchema> = {
      mountPath: mountInGuest,
      dataDirectory: '/var/isobar',
      controlSocket: '/tmp/control.sock',
      channel: { address: `virtio:/dev/virtio-ports/${channelPort}` },
      // Translated code starts so slowly that it must not be taken for an agent that hangs.
      ...(accelerator === 'tcg' ? { unresponsiveMaxMs: tcgUnresponsiveMaxMs } : {}),
    };
    const image = await buildGuestImage(directory, {
      programs: { '/usr/bin/system-calls': systemCalls },
      texts: { [configPath]: JSON.stringify(config) },
    });
    const options = { image, directory, accelerator, ports: [channelPort], cpuCount: 2 };
    const vm = new AgentVm(await QemuGuest.boot(qemu, options));
    try {
      await vm.#startAgent();
    } catch (error) {
      await vm[Symbol.asyncDispose]();
      throw error;
    }
    return vm;
  }

  /** The host's end of the guest channel. */
  get channelPath(): string {
    return this.guest.portPath(channelPort);
  }

  /** What supervisor and agents logged, from warnings on. */
  log(): Promise<string> {
    return this.guest.shell.sh(`cat ${agentLogPath}`);
  }

  /** The process that serves the mount now. */
  async agentProcessId(): Promise<number> {
    const list = await this.guest.shell.sh('ps');
    const [, id] = /^\s*(\d+) .*guest-agent\/main\.js/m.exec(list) ?? [];
    if (id === undefined) throw new Error(`no agent runs in the guest:\n${list}`);
    return Number(id);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.guest[Symbol.asyncDispose]();
  }

  async #startAgent(): Promise<void> {
    const entry = join(packageInGuest, 'dist/test/support/mounted-agent-fixture.js');
    // As a VM's init would: a start that failed, on a machine too busy for the supervisor's patience, is followed by another.
    await this.guest.shell.sh(
      `mkdir -p ${mountInGuest} /var/isobar
(until node ${entry} ${configPath}; do usleep 100000; done) >${agentLogPath} 2>&1 &`,
    );
    try {
      await eventually(() => this.guest.shell.sh(`test -d ${mountInGuest}/unencrypted`), {
        timeoutMs: startTimeoutMs,
        pollMs: 200,
      });
    } catch (error) {
      const log = await this.log();
      throw new Error(`the agent in the guest did not start:\n${log}`, { cause: error });
    }
  }
}
