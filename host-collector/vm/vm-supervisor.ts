import type { Clock } from '../../common/runtime/clock.ts';
import type { Log } from '../../common/runtime/log.ts';
import type { Service } from '../../common/runtime/service.ts';
import { StageCounters, type StageCounts } from '../../common/runtime/stage-counters.ts';
import type { VmState } from '../../common/wire/frame.ts';
import type { ProbeDescriptor, VmDescriptor, VmId } from '../../common/wire/vm-descriptor.ts';
import type { ChannelTrouble } from '../guests/channel-trouble.ts';
import type { Origin } from '../origin/origin.ts';
import { ProbeSchedule, probeIntervalMs } from '../probes/probe-schedule.ts';
import type { Probe, ProbeReading } from '../probes/probe.ts';
import type { DescriptorStore, RefusedDescriptor } from './descriptor-store.ts';
import type { GuestListener } from './guest-listener.ts';

/** Makes the client of a VM's guest channel; it dials, resumes and retries by itself until stopped. */
export type GuestClientFactory = (
  guest: NonNullable<VmDescriptor['guest']>,
  listener: GuestListener,
  vm: VmId,
) => GuestClient;

/** A guest channel's client: what it gives and what the listener has taken. */
export interface GuestClient extends Service {
  readonly counts: StageCounts;
  /** What keeps failing although the guest can be reached; null while all is well. */
  readonly trouble: ChannelTrouble | null;
}

/** Makes the probe that a descriptor asks for; null for none. */
export type ProbeFactory = (descriptor: ProbeDescriptor, vm: VmId) => Probe | null;

export interface VmStatus {
  readonly vm: VmId;
  readonly revision: number;
  /** set-aside: its descriptor is refused, and nothing is measured of it. */
  readonly vmState: VmState | 'set-aside';
  /** Why it is set aside, and what to do. */
  readonly problem?: string;
  /** Rows of the guest and samples of the probe. */
  readonly origin: StageCounts;
  /** What the specifiers made of them. */
  readonly deliveries: StageCounts;
  /** The guest channel's client; null without a guest. */
  readonly guest: StageCounts | null;
  readonly guestTrouble: ChannelTrouble | null;
}

interface Running {
  readonly guest: GuestClient | null;
  readonly schedule: ProbeSchedule | null;
}

/** Keeps what runs equal to what the descriptors say: adding, changing and removing a VM disturbs no other. */
export class VmSupervisor implements Service {
  readonly name = 'vm-supervisor';
  readonly #store: DescriptorStore;
  readonly #origin: Origin;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #makeGuest: GuestClientFactory;
  readonly #makeProbe: ProbeFactory;
  readonly #probeIntervalMinMs: number;
  readonly #running = new Map<VmId, Running>();

  constructor(
    deps: {
      readonly store: DescriptorStore;
      readonly origin: Origin;
      readonly clock: Clock;
      readonly log: Log;
      readonly makeGuest: GuestClientFactory;
      readonly makeProbe: ProbeFactory;
    },
    options: { readonly probeIntervalMinMs: number },
  ) {
    this.#store = deps.store;
    this.#origin = deps.origin;
    this.#clock = deps.clock;
    this.#log = deps.log;
    this.#makeGuest = deps.makeGuest;
    this.#makeProbe = deps.makeProbe;
    this.#probeIntervalMinMs = options.probeIntervalMinMs;
  }

  async start(): Promise<void> {
    for (const { vm, revision, reason } of this.#store.refused()) {
      this.#log.error('vm-set-aside', { vm, revision, reason });
    }
    for (const descriptor of this.#store.list()) await this.#run(descriptor);
  }

  async stop(): Promise<void> {
    for (const vm of this.#running.keys()) await this.#halt(vm);
  }

  /** @throws DescriptorError as {@link DescriptorStore.add} does. */
  async add(document: unknown): Promise<VmDescriptor> {
    const descriptor = this.#store.add(document);
    if (!this.#running.has(descriptor.id)) await this.#run(descriptor);
    return descriptor;
  }

  /** Runs a VM that was set aside. @throws DescriptorError as {@link DescriptorStore.setMonitoring} does. */
  async setMonitoring(
    vm: string,
    expectedRevision: number,
    monitoring: unknown,
  ): Promise<VmDescriptor> {
    const descriptor = this.#store.setMonitoring(vm, expectedRevision, monitoring);
    if (!this.#running.has(descriptor.id)) {
      await this.#run(descriptor);
      return descriptor;
    }
    this.#origin.update(descriptor);
    const { specifiers } = descriptor.monitoring;
    const intervalMs = probeIntervalMs(specifiers, this.#probeIntervalMinMs);
    this.#running.get(descriptor.id)?.schedule?.setInterval(intervalMs);
    return descriptor;
  }

  /** Ends the VM's streams. @throws DescriptorError `vm-unknown`. */
  async remove(vm: string): Promise<void> {
    const id = this.#store.find(vm);
    await this.#halt(id);
    this.#origin.remove(id);
    this.#store.remove(id);
  }

  list(): readonly VmDescriptor[] {
    return this.#store.list();
  }

  refused(): readonly RefusedDescriptor[] {
    return this.#store.refused();
  }

  read(vm: string): VmDescriptor {
    return this.#store.read(vm);
  }

  status(): readonly VmStatus[] {
    const setAside = this.#store.refused().map(({ vm, revision, reason }): VmStatus => ({
      vm,
      revision,
      vmState: 'set-aside',
      problem: reason,
      origin: new StageCounters().snapshot(),
      deliveries: new StageCounters().snapshot(),
      guest: null,
      guestTrouble: null,
    }));
    const running = this.#store.list().flatMap(({ id, revision }): VmStatus[] => {
      const counts = this.#origin.counts(id);
      if (counts === undefined) return [];
      const { inputs: origin, deliveries } = counts;
      const client = this.#running.get(id)?.guest;
      const guest = client?.counts ?? null;
      const guestTrouble = client?.trouble ?? null;
      const vmState = this.#origin.vmState(id);
      return [{ vm: id, revision, vmState, origin, deliveries, guest, guestTrouble }];
    });
    return [...running, ...setAside];
  }

  async #run(descriptor: VmDescriptor): Promise<void> {
    const { id, guest, probe, monitoring } = descriptor;
    this.#origin.add(descriptor);
    const source = this.#makeProbe(probe, id);
    const schedule =
      source === null
        ? null
        : new ProbeSchedule({ clock: this.#clock }, source, (measurements, reading) => {
            this.#origin.measured(id, measurements);
            this.#noteReading(id, guest !== undefined, reading);
          });
    const listener = this.#origin.guestListener(id);
    const client =
      guest === undefined || listener === undefined ? null : this.#makeGuest(guest, listener, id);
    this.#running.set(id, { guest: client, schedule });
    schedule?.setInterval(probeIntervalMs(monitoring.specifiers, this.#probeIntervalMinMs));
    await client?.start();
  }

  /** The host sees death and suspension itself; that a VM with a guest runs is for the guest to show. */
  #noteReading(vm: VmId, hasGuest: boolean, reading: ProbeReading): void {
    if (reading.kind === 'vanished') this.#origin.setVmState(vm, 'dead');
    else if (reading.isSuspended) this.#origin.setVmState(vm, 'suspended');
    else if (!hasGuest || this.#origin.vmState(vm) === 'suspended') {
      this.#origin.setVmState(vm, 'running');
    }
  }

  async #halt(vm: VmId): Promise<void> {
    const running = this.#running.get(vm);
    this.#running.delete(vm);
    running?.schedule?.setInterval(null);
    await running?.guest?.stop();
  }
}
