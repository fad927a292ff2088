import { join } from 'node:path';

import type { BackendName } from '../../guest-agent/fuse/backend-capability.ts';
import type { DataDirectory } from '../data-directory.ts';

export interface UpSettings {
  readonly directory: DataDirectory;
  readonly mount: string;
  readonly fuseBackend: BackendName;
  readonly mqttPort: number;
}

/** The configurations of the three processes for one machine; each is checked by its process's own schema. */
export interface ProcessConfigs {
  readonly guestAgent: object;
  readonly hostCollector: object;
  readonly primarySite: object;
}

/** Only what differs from the defaults of the processes. */
export function processConfigs(settings: UpSettings): ProcessConfigs {
  const { directory, mount, fuseBackend, mqttPort } = settings;
  const { sockets } = directory;
  return {
    guestAgent: {
      mountPath: mount,
      dataDirectory: join(directory.path, 'guest-agent'),
      fuseBackend,
      controlSocket: sockets.guestAgent,
      channel: { address: `unix:${sockets.guestChannel}` },
    },
    hostCollector: {
      dataDirectory: join(directory.path, 'host-collector'),
      controlSocket: sockets.hostCollector,
      mqttPort,
    },
    primarySite: {
      dataDirectory: join(directory.path, 'primary-site'),
      controlSocket: sockets.primarySite,
      mqttUrl: mqttUrlOf(mqttPort),
    },
  };
}

export function mqttUrlOf(port: number): string {
  return `mqtt://127.0.0.1:${port}`;
}
