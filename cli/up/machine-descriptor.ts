import {
  vmDescriptorSchema,
  vmIdSchema,
  type VmDescriptor,
} from '../../common/wire/vm-descriptor.ts';

const vmIdCharsMax = 64;

/** A host name as a VM id: what an id may not hold becomes `-`. */
export function vmIdOfHost(hostName: string): VmDescriptor['id'] {
  const text = hostName.replaceAll(/[^A-Za-z0-9_-]+/g, '-').slice(0, vmIdCharsMax);
  return vmIdSchema.parse(text === '' ? 'localhost' : text);
}

/**
 * This machine as a VM: every KPI at once, opaque files too, and what /proc tells every five seconds. What is delivered
 * can be changed with `isobar vm set-monitoring`; it is registered only once.
 */
export function machineDescriptor(hostName: string, guestChannelPath: string): VmDescriptor {
  return vmDescriptorSchema.parse({
    apiVersion: 'isobar/v1',
    kind: 'VirtualMachine',
    id: vmIdOfHost(hostName),
    guest: { channel: `unix:${guestChannelPath}` },
    probe: { kind: 'machine' },
    monitoring: {
      specifiers: [
        { id: 'kpi', dataPoints: 'kpi/**' },
        { id: 'encrypted', dataPoints: 'encrypted/**' },
        { id: 'infra', dataPoints: 'infra/**', monitoringIntervalMs: 5_000 },
      ],
    },
  });
}
